//! Members: the subscriptions that get a message together, of a destination or of a group.
//!
//! Whoever delivers slowly holds a clone, which costs nothing until the list changes. So a route may outlive
//! its session and its subscription: look both up with `get`.

use std::rc::Rc;

use super::ids::{SessionId, SubscriptionIndex};

/// A receiver of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The receiving session.
    pub session: SessionId,
    /// The subscription by which it receives.
    pub subscription: SubscriptionIndex,
}

/// A list of routes in which adding and removing cost the same however long it is.
#[derive(Clone, Debug, Default)]
pub(crate) enum Members {
    /// No routes.
    #[default]
    None,
    /// The only route, which most topics have.
    One(Route),
    /// At least two.
    Many(Rc<Vec<Route>>),
}

impl Members {
    /// The routes.
    #[inline]
    pub(crate) fn routes(&self) -> &[Route] {
        match self {
            Self::None => &[],
            Self::One(route) => std::slice::from_ref(route),
            Self::Many(routes) => routes,
        }
    }

    /// Whether it is the same list, which has not changed since one was cloned from the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::One(route), Self::One(other)) => route == other,
            (Self::Many(routes), Self::Many(others)) => Rc::ptr_eq(routes, others),
            _ => false,
        }
    }

    /// Whether there are no routes.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Adds a route. Returns its position, by which it is removed.
    pub(crate) fn push(&mut self, route: Route) -> u32 {
        match self {
            Self::None => {
                *self = Self::One(route);
                0
            }
            Self::One(first) => {
                *self = Self::Many(Rc::new(vec![*first, route]));
                1
            }
            Self::Many(routes) => {
                let routes = Rc::make_mut(routes);
                routes.push(route);
                routes.len() as u32 - 1
            }
        }
    }

    /// Removes the route of a subscription, if it is at that position. Returns the subscription that has its
    /// position now.
    pub(crate) fn remove(
        &mut self,
        position: u32,
        subscription: SubscriptionIndex,
    ) -> Option<SubscriptionIndex> {
        let position = position as usize;
        if self.routes().get(position)?.subscription != subscription {
            return None;
        }
        let Self::Many(routes) = self else {
            *self = Self::None;
            return None;
        };
        let routes = Rc::make_mut(routes);
        routes.swap_remove(position);
        if routes.len() < routes.capacity() / 4 {
            routes.shrink_to(routes.len() * 2);
        }
        let moved = routes.get(position).map(|route| route.subscription);
        if let [only] = routes[..] {
            *self = Self::One(only);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::broker::table::{Key, Place};

    fn route(number: u32) -> Route {
        let place = Place::new(number, NonZeroU32::MIN);
        Route { session: SessionId::new(place), subscription: SubscriptionIndex::new(place) }
    }

    #[test]
    fn a_list_is_small_and_a_clone_of_it_stays_as_it_was() {
        assert_eq!((size_of::<Route>(), size_of::<Members>()), (16, 24));
        let mut members = Members::default();
        for number in 0..5 {
            assert_eq!(members.push(route(number)), number);
        }
        let before = members.clone();
        assert!(members.is_same(&before));
        assert_eq!(members.remove(1, route(1).subscription), Some(route(4).subscription));
        members.push(route(5));
        assert_eq!(before.routes(), (0..5).map(route).collect::<Vec<_>>());
        assert_eq!(members.routes(), [0, 4, 2, 3, 5].map(route));
        assert!(!members.is_same(&before) && before.is_same(&before.clone()));
    }

    proptest! {
        #[test]
        fn each_member_is_found_at_its_position(
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..100),
        ) {
            let mut members = Members::default();
            // By number; `None` if it was removed.
            let mut positions: Vec<Option<u32>> = Vec::new();
            for (adds, which) in steps {
                if adds || positions.is_empty() {
                    let number = positions.len() as u32;
                    positions.push(Some(members.push(route(number))));
                } else {
                    let number = which.index(positions.len());
                    let subscription = route(number as u32).subscription;
                    let gone = positions[number].take();
                    let moved = members.remove(gone.unwrap_or(0), subscription);
                    prop_assert!(gone.is_some() || moved.is_none(), "it was removed before");
                    if let Some(moved) = moved {
                        positions[moved.place().index() as usize] = gone;
                    }
                }
                let held = positions.iter().flatten().count();
                prop_assert_eq!(members.routes().len(), held);
                prop_assert_eq!(members.is_empty(), held == 0);
                prop_assert_eq!(matches!(members, Members::Many(_)), held > 1);
                for (number, position) in positions.iter().enumerate() {
                    if let Some(position) = position {
                        prop_assert_eq!(members.routes()[*position as usize], route(number as u32));
                    }
                }
            }
        }
    }
}
