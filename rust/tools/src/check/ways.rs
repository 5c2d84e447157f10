// SPDX-License-Identifier: GPL-2.0

//! Ways up: directories to the root, subvolumes to the top level.

/// Where the way up from something goes on.
pub enum Up {
    /// It ends where it should.
    Top,
    /// To this one.
    To(usize),
    /// It ends elsewhere.
    Nowhere,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    /// The walk that is under way came by.
    Passed,
    Good,
    Bad,
}

/// For each of `count` things whether the way up from it ends at the top: also one that goes round in
/// a circle does not. Each is passed once.
pub fn ends_at_top(count: usize, up: impl Fn(usize) -> Up) -> Vec<bool> {
    let mut states = vec![State::Unknown; count];
    let mut way = Vec::new();
    for start in 0..count {
        let mut at = start;
        let end = loop {
            match states.get(at) {
                Some(State::Unknown) => {}
                Some(State::Good) => break State::Good,
                _ => break State::Bad,
            }
            states[at] = State::Passed;
            way.push(at);
            match up(at) {
                Up::Top => break State::Good,
                Up::To(next) => at = next,
                Up::Nowhere => break State::Bad,
            }
        };
        for passed in way.drain(..) {
            states[passed] = end;
        }
    }
    states.iter().map(|state| *state == State::Good).collect()
}

#[cfg(test)]
mod tests {
    use super::{ends_at_top, Up};

    #[test]
    fn circles_and_ends() {
        // 0 is the top, 1 and 2 are below it; 3 and 4 contain each other, 5 is below; 6 is nowhere.
        let up = |i| match i {
            0 => Up::Top,
            6 => Up::Nowhere,
            _ => Up::To([0, 0, 1, 4, 3, 3][i]),
        };
        let good = [true, true, true, false, false, false, false];
        assert_eq!(ends_at_top(7, up), good);
    }

    /// Each way would be as long as there are things, if it were gone again for each.
    #[test]
    fn long_chains_are_passed_once() {
        let calls = std::cell::Cell::new(0);
        let up = |i| {
            calls.set(calls.get() + 1);
            match i {
                99_999 => Up::Nowhere,
                _ => Up::To(i + 1),
            }
        };
        assert!(ends_at_top(100_000, up).iter().all(|good| !good));
        assert_eq!(calls.get(), 100_000);
    }
}
