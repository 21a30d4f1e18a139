//! Members: the subscriptions that get a message together, of a destination or of a group.
//!
//! Whoever delivers slowly holds a clone, which costs nothing until the list changes. A long list is in pieces, so that a
//! change copies a piece or two and not all. A route may outlive its session and its subscription in a clone: look both
//! up with `get`.

use std::cell::Cell;
use std::rc::Rc;

use super::ids::{SessionId, SubscriptionIndex};
use crate::work;

/// A receiver of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The receiving session.
    pub session: SessionId,
    /// The subscription by which it receives.
    pub subscription: SubscriptionIndex,
}

/// A list of routes in which adding and removing cost about the same however long it is.
#[derive(Clone, Debug, Default)]
pub(crate) enum Members {
    /// No routes.
    #[default]
    None,
    /// The only route, which most topics have.
    One(Route),
    /// At least two, and no more than a piece has.
    Few(Rc<Vec<Route>>),
    /// At least two pieces.
    Many(Rc<Pieces>),
}

/// A list in pieces.
#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    /// All are full but the last, which is not empty.
    pieces: Vec<Rc<Vec<Route>>>,
    /// Bytes that were copied of this list and its clones because they had changed, since it became long.
    copied: Rc<Cell<u64>>,
    /// How many they were when this clone was what the list was.
    copied_before: u64,
}

/// What changes of lists have copied because somebody holds clones of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Copies {
    /// Bytes that were copied.
    pub bytes: u64,
    /// Pieces that are held once more.
    pub pieces: u32,
}

impl Copies {
    /// Work of the copying.
    pub(crate) fn units(self) -> u32 {
        work::FRESH_KIB * work::of_bytes(self.bytes as usize) + self.pieces / PIECES_PER_UNIT
    }

    /// Copies a piece if it is held elsewhere, with room for one more route.
    fn piece<'p>(&mut self, piece: &'p mut Rc<Vec<Route>>) -> &'p mut Vec<Route> {
        if Rc::get_mut(piece).is_none() {
            let mut copy = Vec::with_capacity((piece.len() + 1).next_power_of_two().min(PIECE));
            copy.extend_from_slice(piece);
            self.bytes += bytes_of(&copy);
            *piece = Rc::new(copy);
        }
        Rc::make_mut(piece)
    }

    /// Copies the list of pieces if it is held elsewhere.
    fn pieces<'p>(&mut self, many: &'p mut Rc<Pieces>) -> &'p mut Pieces {
        if Rc::get_mut(many).is_none() {
            self.bytes += many.own_bytes();
            self.pieces += many.pieces.len() as u32;
        }
        Rc::make_mut(many)
    }
}

/// Memory of a piece.
fn bytes_of(routes: &Vec<Route>) -> u64 {
    (routes.capacity() * size_of::<Route>()) as u64
}

impl Members {
    /// The number of routes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Few(routes) => routes.len(),
            Self::Many(many) => many.len(),
        }
    }

    /// Routes in a row from a position on, at least one unless the list ends before it.
    #[inline]
    pub(crate) fn from(&self, position: usize) -> &[Route] {
        let (routes, position) = match self {
            Self::None => (&[][..], position),
            Self::One(route) => (std::slice::from_ref(route), position),
            Self::Few(routes) => (&routes[..], position),
            Self::Many(many) => (many.piece(position / PIECE), position % PIECE),
        };
        routes.get(position..).unwrap_or_default()
    }

    /// All routes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Route> {
        let pieces = (0..self.len().div_ceil(PIECE)).map(|piece| self.from(piece * PIECE));
        pieces.flatten()
    }

    /// Whether it is the same list, which has not changed since one was cloned from the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::One(route), Self::One(other)) => route == other,
            (Self::Few(routes), Self::Few(others)) => Rc::ptr_eq(routes, others),
            (Self::Many(many), Self::Many(other)) => Rc::ptr_eq(many, other),
            _ => false,
        }
    }

    /// Whether there are no routes.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The part of the memory of a clone that is there for it, about: never much less than what becomes free with it and
    /// with others that are held for as long.
    pub(crate) fn held_bytes(&self) -> u64 {
        match self {
            Self::None | Self::One(_) => 0,
            Self::Few(routes) => bytes_of(routes) / Rc::strong_count(routes) as u64,
            Self::Many(many) => {
                // What was copied since may have been of the same pieces.
                let whole = (many.pieces.len() * PIECE * size_of::<Route>()) as u64;
                let alone = whole.min(many.copied.get() - many.copied_before);
                (many.own_bytes() + alone) / Rc::strong_count(many) as u64
            }
        }
    }

    /// Work of freeing a clone.
    pub(crate) fn units_of_end(&self) -> u32 {
        match self {
            Self::Many(many) if Rc::strong_count(many) == 1 => {
                many.pieces.len() as u32 / PIECES_PER_UNIT + work::of_freed(self.held_bytes())
            }
            _ => 0,
        }
    }

    /// Adds a route. Returns its position, by which it is removed.
    pub(crate) fn push(&mut self, route: Route, copies: &mut Copies) -> u32 {
        match self {
            Self::None => {
                *self = Self::One(route);
                0
            }
            Self::One(first) => {
                *self = Self::Few(Rc::new(vec![*first, route]));
                1
            }
            Self::Few(routes) if routes.len() < PIECE => {
                let routes = copies.piece(routes);
                routes.push(route);
                routes.len() as u32 - 1
            }
            Self::Few(routes) => {
                let pieces = vec![routes.clone(), Rc::new(vec![route])];
                *self =
                    Self::Many(Rc::new(Pieces { pieces, copied: Rc::default(), copied_before: 0 }));
                PIECE as u32
            }
            Self::Many(many) => {
                let before = copies.bytes;
                let many = copies.pieces(many);
                many.push(route, copies);
                many.note_copied(copies.bytes - before);
                many.len() as u32 - 1
            }
        }
    }

    /// Removes the route of a subscription, if it is at that position. Returns the subscription that has its
    /// position now.
    pub(crate) fn remove(
        &mut self,
        position: u32,
        subscription: SubscriptionIndex,
        copies: &mut Copies,
    ) -> Option<SubscriptionIndex> {
        let position = position as usize;
        if self.from(position).first()?.subscription != subscription {
            return None;
        }
        match self {
            Self::None | Self::One(_) => *self = Self::None,
            Self::Few(routes) => {
                let routes = copies.piece(routes);
                routes.swap_remove(position);
                shrink(routes);
                if let [only] = routes[..] {
                    *self = Self::One(only);
                }
            }
            Self::Many(many) => {
                let before = copies.bytes;
                let many = copies.pieces(many);
                many.swap_remove(position, copies);
                many.note_copied(copies.bytes - before);
                if let [only] = &many.pieces[..] {
                    *self = Self::Few(only.clone());
                }
            }
        }
        self.from(position).first().map(|route| route.subscription)
    }
}

impl Pieces {
    fn len(&self) -> usize {
        let last = self.pieces.last().map_or(0, |piece| piece.len());
        (self.pieces.len().max(1) - 1) * PIECE + last
    }

    /// A piece, empty if there are fewer.
    #[inline]
    fn piece(&self, index: usize) -> &[Route] {
        self.pieces.get(index).map_or(&[], |piece| &piece[..])
    }

    fn push(&mut self, route: Route, copies: &mut Copies) {
        match self.pieces.last_mut() {
            Some(last) if last.len() < PIECE => copies.piece(last).push(route),
            _ => self.pieces.push(Rc::new(vec![route])),
        }
    }

    /// Removes the route at a position, where the last one comes.
    fn swap_remove(&mut self, position: usize, copies: &mut Copies) {
        let Some(last) = self.pieces.last_mut() else { return };
        let moved = match last[..] {
            [only] => {
                self.pieces.pop();
                if self.pieces.len() < self.pieces.capacity() / 4 {
                    self.pieces.shrink_to(self.pieces.len() * 2);
                }
                Some(only)
            }
            _ => {
                let last = copies.piece(last);
                let moved = last.pop();
                shrink(last);
                moved
            }
        };
        // It may have been the last one.
        let piece = self.pieces.get_mut(position / PIECE);
        let piece = piece.filter(|piece| position % PIECE < piece.len());
        if let (Some(piece), Some(moved)) = (piece, moved) {
            copies.piece(piece)[position % PIECE] = moved;
        }
    }

    /// Notes that so much was copied for a change.
    fn note_copied(&mut self, bytes: u64) {
        self.copied_before = self.copied.get() + bytes;
        self.copied.set(self.copied_before);
    }

    /// Memory without that of the pieces.
    fn own_bytes(&self) -> u64 {
        (size_of::<Self>() + self.pieces.len() * size_of::<Rc<Vec<Route>>>()) as u64
    }
}

fn shrink(routes: &mut Vec<Route>) {
    if routes.len() < routes.capacity() / 4 {
        routes.shrink_to(routes.len() * 2);
    }
}

/// Routes of a piece: what a change copies of the longest list is as much as the list of its pieces.
const PIECE: usize = 512;

/// Pieces that are held once more, or no more, for a unit.
const PIECES_PER_UNIT: u32 = 16;

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
        let mut copies = Copies::default();
        for number in 0..5 {
            assert_eq!(members.push(route(number), &mut copies), number);
        }
        let before = members.clone();
        assert!(members.is_same(&before));
        let moved = members.remove(1, route(1).subscription, &mut copies);
        assert_eq!(moved, Some(route(4).subscription));
        members.push(route(5), &mut copies);
        assert_eq!(before.from(0), (0..5).map(route).collect::<Vec<_>>());
        assert_eq!(members.from(0), [0, 4, 2, 3, 5].map(route));
        assert!(!members.is_same(&before) && before.is_same(&before.clone()));
    }

    fn long_list(len: u32) -> Members {
        let (mut members, mut copies) = (Members::default(), Copies::default());
        for number in 0..len {
            assert_eq!(members.push(route(number), &mut copies), number);
        }
        assert_eq!((copies.bytes, members.held_bytes() < 10_000), (0, true));
        members
    }

    /// The memory of routes and pieces that clones have and the list has not.
    fn bytes_besides(members: &Members, clones: &[Members]) -> u64 {
        let mut known = std::collections::HashSet::new();
        let mut bytes = 0;
        let own = [members];
        for (one, counts) in
            own.into_iter().map(|one| (one, 0)).chain(clones.iter().map(|one| (one, 1)))
        {
            let Members::Many(many) = one else { continue };
            let pieces =
                many.pieces.iter().map(|piece| (Rc::as_ptr(piece).addr(), bytes_of(piece)));
            let spine = (Rc::as_ptr(many).addr(), many.own_bytes());
            let new = pieces.chain([spine]).filter(|(address, _)| known.insert(*address));
            bytes += counts * new.map(|(_, bytes)| bytes).sum::<u64>();
        }
        bytes
    }

    #[test]
    fn a_change_of_a_long_list_copies_a_small_part_and_who_holds_a_clone_counts_it() {
        let len = 250_000;
        let mut members = long_list(len);
        let (mut clones, mut copies) = (Vec::new(), Copies::default());
        // Each sender holds the list as it was, and somebody's subscription is another one in between.
        for number in 0..200 {
            clones.push(members.clone());
            let position = number * 1_009 % len;
            let gone = members.from(position as usize)[0];
            assert!(members.remove(position, gone.subscription, &mut copies).is_some());
            members.push(route(len + number), &mut copies);
        }
        let piece = (PIECE * size_of::<Route>()) as u64;
        assert!(copies.bytes < 200 * (2 * piece + 5_000), "{copies:?}");
        assert!(copies.units() > 200 * 20, "{} units", copies.units());
        for from in [0, 100, 199] {
            let besides = bytes_besides(&members, &clones[from..]);
            let counted: u64 = clones[from..].iter().map(Members::held_bytes).sum();
            assert!(counted >= besides / 2, "{counted} bytes are counted of {besides}");
        }
        // What none but the last one holds any more becomes free with it, and the list holds nothing for others.
        let last = clones.split_off(199);
        drop(clones);
        assert!(last[0].held_bytes() < 3 * piece && last[0].units_of_end() > 20);
    }

    proptest! {
        #[test]
        fn a_clone_of_a_list_of_any_length_stays_as_it_was(
            len in prop::sample::select(vec![2u32, 511, 512, 513, 514, 1_024, 1_025, 1_100]),
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..40),
            clone_at in 0..40usize,
        ) {
            let mut members = long_list(len);
            let mut model: Vec<_> = (0..len).map(route).collect();
            let (mut copies, mut clone) = (Copies::default(), None);
            for (number, (adds, which)) in steps.into_iter().enumerate() {
                if number == clone_at {
                    clone = Some((members.clone(), model.clone()));
                }
                if adds || model.is_empty() {
                    let new = route(len + number as u32);
                    prop_assert_eq!(members.push(new, &mut copies) as usize, model.len());
                    model.push(new);
                } else {
                    let position = which.index(model.len());
                    let gone = model.swap_remove(position).subscription;
                    let moved = members.remove(position as u32, gone, &mut copies);
                    prop_assert_eq!(moved, model.get(position).map(|route| route.subscription));
                }
                prop_assert_eq!(members.len(), model.len());
                prop_assert_eq!(matches!(members, Members::Many(_)), model.len() > PIECE);
            }
            prop_assert!(members.iter().eq(&model));
            if let Some((clone, model)) = clone {
                prop_assert!(clone.iter().eq(&model));
            }
        }

        #[test]
        fn each_member_is_found_at_its_position(
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..100),
        ) {
            let mut members = Members::default();
            // By number; `None` if it was removed.
            let mut positions: Vec<Option<u32>> = Vec::new();
            let mut copies = Copies::default();
            for (adds, which) in steps {
                if adds || positions.is_empty() {
                    let number = positions.len() as u32;
                    positions.push(Some(members.push(route(number), &mut copies)));
                } else {
                    let number = which.index(positions.len());
                    let subscription = route(number as u32).subscription;
                    let gone = positions[number].take();
                    let moved = members.remove(gone.unwrap_or(0), subscription, &mut copies);
                    prop_assert!(gone.is_some() || moved.is_none(), "it was removed before");
                    if let Some(moved) = moved {
                        positions[moved.place().index() as usize] = gone;
                    }
                }
                let held = positions.iter().flatten().count();
                prop_assert_eq!(members.len(), held);
                prop_assert_eq!(members.is_empty(), held == 0);
                prop_assert_eq!(matches!(members, Members::Few(_)), held > 1);
                for (number, position) in positions.iter().enumerate() {
                    if let Some(position) = position {
                        prop_assert_eq!(members.from(*position as usize)[0], route(number as u32));
                    }
                }
            }
        }
    }
}
