//! What it costs at most to make sets of letters of the classes in a pattern.
//!
//! `\pL` is three bytes of a pattern and hundreds of ranges of letters, and regardless of case each letter of a
//! range is looked up.

use regex_syntax::ast::{
    self, Ast, ClassPerl, ClassPerlKind, ClassSetBinaryOp, ClassSetItem, ClassUnicode,
    ClassUnicodeKind, Flag, Flags,
};

/// To make a set of so many ranges, and to look up whether a letter has cases, in nanoseconds.
const RANGE_COST: u64 = 5;
const LETTER_COST: u64 = 4;

/// The cost of the classes of a pattern, in nanoseconds of a usual machine.
pub(super) fn cost(ast: &Ast) -> u64 {
    let flags = match ast::visit(ast, FoundFlags::default()) {
        Ok(flags) => flags,
        Err(never) => match never {},
    };
    let counter = Counter { is_folded: flags.is_folded, cost: 0, open: Vec::new() };
    match ast::visit(ast, counter) {
        Ok(cost) => cost,
        Err(never) => match never {},
    }
}

/// Whether the pattern turns to letters by itself.
pub(super) fn is_by_letters(ast: &Ast) -> bool {
    match ast::visit(ast, FoundFlags::default()) {
        Ok(flags) => flags.is_by_letters,
        Err(never) => match never {},
    }
}

/// Flags that are set anywhere in a pattern. They count for all of it.
#[derive(Default)]
struct FoundFlags {
    is_folded: bool,
    is_by_letters: bool,
}

impl FoundFlags {
    fn add(&mut self, flags: &Flags) {
        self.is_folded |= flags.flag_state(Flag::CaseInsensitive) == Some(true);
        self.is_by_letters |= flags.flag_state(Flag::Unicode) == Some(true);
    }
}

impl ast::Visitor for FoundFlags {
    type Output = Self;
    type Err = std::convert::Infallible;

    fn finish(self) -> Result<Self, Self::Err> {
        Ok(self)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        match ast {
            Ast::Flags(set) => self.add(&set.flags),
            Ast::Group(group) => group.flags().into_iter().for_each(|flags| self.add(flags)),
            _ => {}
        }
        Ok(())
    }
}

/// An upper bound of what a set consists of.
#[derive(Clone, Copy, Default)]
struct Size {
    ranges: u64,
    /// Letters in ranges with letters that have cases.
    letters: u64,
}

impl Size {
    /// No category has more.
    const CATEGORY: Self = Self { ranges: 800, letters: 20_000 };
    const ALL: Self = Self { ranges: 1, letters: 0x11_0000 };

    fn of_category(class: &ClassUnicode) -> Self {
        let (ClassUnicodeKind::Named(name) | ClassUnicodeKind::NamedValue { value: name, .. }) =
            &class.kind
        else {
            return Self::CATEGORY;
        };
        // `Any` and `Assigned` hold letters with cases within large ranges. Names are compared loosely.
        let letters = name.chars().filter(char::is_ascii_alphabetic);
        let name = letters.map(|letter| letter.to_ascii_lowercase()).collect::<String>();
        let is_large = name.contains("any") || name.contains("assigned");
        if is_large {
            Self { letters: Self::ALL.letters, ..Self::CATEGORY }
        } else {
            Self::CATEGORY
        }
    }

    fn of_perl(class: &ClassPerl) -> Self {
        match class.kind {
            ClassPerlKind::Digit | ClassPerlKind::Space => Self { ranges: 80, letters: 1000 },
            ClassPerlKind::Word => Self::CATEGORY,
        }
    }

    fn negated(self, is_negated: bool) -> Self {
        let letters = if is_negated { Self::ALL.letters } else { self.letters };
        Self { ranges: self.ranges + u64::from(is_negated), letters }
    }

    fn plus(self, other: Self) -> Self {
        Self { ranges: self.ranges + other.ranges, letters: self.letters + other.letters }
    }
}

struct Counter {
    is_folded: bool,
    cost: u64,
    /// The sets within brackets that are open.
    open: Vec<Size>,
}

impl Counter {
    /// A set is made, or made regardless of case.
    fn count(&mut self, size: Size) {
        self.cost += RANGE_COST * size.ranges;
        if self.is_folded {
            self.cost += LETTER_COST * size.letters;
        }
    }

    /// A set becomes part of the one around it.
    fn add(&mut self, size: Size) {
        if let Some(outer) = self.open.last_mut() {
            *outer = outer.plus(size);
            // The ranges of both are merged.
            self.cost += outer.ranges;
        }
    }

    fn close(&mut self, is_negated: bool) {
        let size = self.open.pop().unwrap_or_default();
        self.count(size);
        self.add(size.negated(is_negated));
    }

    /// A category, which is made regardless of case by itself and before it is negated.
    fn category(&mut self, class: &ClassUnicode) {
        let size = Size::of_category(class);
        self.count(size);
        self.add(size.negated(class.is_negated()));
    }

    /// A class that has both cases of each letter.
    fn perl(&mut self, class: &ClassPerl) {
        let size = Size::of_perl(class);
        self.cost += RANGE_COST * size.ranges;
        self.add(size.negated(class.negated));
    }
}

impl ast::Visitor for Counter {
    type Output = u64;
    type Err = std::convert::Infallible;

    fn finish(self) -> Result<u64, Self::Err> {
        Ok(self.cost)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        match ast {
            Ast::ClassUnicode(class) => self.category(class),
            Ast::ClassPerl(class) => self.perl(class),
            Ast::ClassBracketed(_) => self.open.push(Size::default()),
            _ => {}
        }
        Ok(())
    }

    fn visit_post(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        if let Ast::ClassBracketed(class) = ast {
            self.close(class.negated);
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
        match item {
            ClassSetItem::Bracketed(_) => self.open.push(Size::default()),
            ClassSetItem::Unicode(class) => self.category(class),
            ClassSetItem::Perl(class) => self.perl(class),
            ClassSetItem::Range(range) => {
                let letters =
                    u64::from(u32::from(range.end.c)) - u64::from(u32::from(range.start.c));
                self.add(Size { ranges: 1, letters: letters + 1 });
            }
            ClassSetItem::Ascii(class) => {
                self.add(Size { ranges: 8, letters: 128 }.negated(class.negated));
            }
            ClassSetItem::Literal(_) => self.add(Size { ranges: 1, letters: 1 }),
            ClassSetItem::Empty(_) | ClassSetItem::Union(_) => {}
        }
        Ok(())
    }

    fn visit_class_set_item_post(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
        if let ClassSetItem::Bracketed(class) = item {
            self.close(class.negated);
        }
        Ok(())
    }

    fn visit_class_set_binary_op_post(&mut self, _: &ClassSetBinaryOp) -> Result<(), Self::Err> {
        // Both sides are made regardless of case, and merged. What is left may have as many letters.
        let size = self.open.last().copied().unwrap_or_default();
        self.count(size);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use regex_syntax::hir::{Class, HirKind};

    use super::*;

    /// The number of ranges of a class, and of letters in those ranges that have letters with cases.
    fn size(text: &str) -> Size {
        let hir = regex_syntax::Parser::new().parse(text).unwrap();
        let class = match hir.kind() {
            HirKind::Class(Class::Unicode(class)) => class,
            HirKind::Literal(_) => return Size { ranges: 1, letters: 1 },
            kind => panic!("{text}: {kind:?}"),
        };
        let has_cases = |letter: char| {
            !letter.to_lowercase().eq([letter]) || !letter.to_uppercase().eq([letter])
        };
        let folded = class.iter().filter(|range| (range.start()..=range.end()).any(has_cases));
        let letters = folded.map(|range| range.len() as u64).sum();
        Size { ranges: class.ranges().len() as u64, letters }
    }

    #[test]
    fn no_category_is_larger_than_is_counted() {
        let categories = "L Lu Ll Lt LC Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs \
                          Zl Zp C Cc Cf Co Cn";
        let texts = categories.split(' ').map(|name| format!(r"\p{{{name}}}"));
        for text in texts.chain([r"\w".to_owned()]) {
            let Size { ranges, letters } = size(&text);
            assert!(ranges <= Size::CATEGORY.ranges, "{text}: {ranges} ranges");
            assert!(letters <= Size::CATEGORY.letters, "{text}: {letters} letters");
        }
        for text in [r"\d", r"\s"] {
            let Size { ranges, letters } = size(text);
            assert!(ranges <= 80 && letters <= 1000, "{text}: {ranges} {letters}");
        }
    }
}
