//! What handlers do, and chance.

use convoke_model::UnixMillis;

/// Random numbers that a seed gives again. Source: SplitMix64, S. Vigna.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    /// Whether something happens that does once in `times`.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// One thing that a handler does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Progress,
    /// Adds to the artifact, or begins it.
    Piece,
    Checkpoint,
    /// Asks one of a few questions, so that some are repeated; may not wait for the answer.
    Ask {
        words: usize,
        authorization: bool,
        withdraws: bool,
    },
    /// Fails in the attempts before this one.
    FailsBefore(u32),
    Panics,
    Rejects,
    Fails,
    Hangs,
    Finishes,
}

/// What a client wants and what its handler does about it.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    pub(super) resumable: bool,
    pub(super) retries: u32,
    pub(super) deadline: Option<UnixMillis>,
    pub(super) is_cancelled: bool,
}

impl Script {
    pub(super) fn random(chance: &mut Chance) -> Self {
        let mut steps: Vec<Step> = (0..chance.below(7)).map(|_| Self::step(chance)).collect();
        steps.push(match chance.below(9) {
            0 => Step::Panics,
            1 => Step::Rejects,
            2 => Step::Fails,
            3 => Step::Hangs,
            _ => Step::Finishes,
        });
        Self {
            steps,
            resumable: !chance.once_in(3),
            retries: chance.below(4) as u32,
            deadline: chance.once_in(4).then(|| UnixMillis(20 + chance.below(200) as u64)),
            is_cancelled: chance.once_in(5),
        }
    }

    fn step(chance: &mut Chance) -> Step {
        match chance.below(10) {
            0 | 1 => Step::Progress,
            2 | 3 => Step::Piece,
            4 | 5 => Step::Checkpoint,
            6 => Step::FailsBefore(chance.below(4) as u32),
            _ => Step::Ask {
                words: chance.below(2),
                authorization: chance.once_in(4),
                withdraws: chance.once_in(5),
            },
        }
    }
}
