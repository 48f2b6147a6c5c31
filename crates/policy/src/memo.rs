//! Answers that are kept, so that a question whose readable facts came before is not asked again.
//!
//! A wrong answer from here would be a hole in the wall, so the rules are strict. Kept are answers
//! of policies alone that depend on nothing but texts of the question ([`Facts::pure`] and no field
//! that [`Field::is_volatile`]). An answer is found by these texts themselves, not by a digest of
//! them, and each goes in with its length, so that no two different questions look the same.
//!
//! [`Facts::pure`]: crate::inspect::Facts::pure

use std::collections::HashMap;

use convoke_model::Reason;

use crate::Question;
use crate::field::{Field, Fields};

/// Most answers that are kept of one policy on one thread.
///
/// Source: 64 callers of 64 capabilities; beyond that, answers come from the engine as without it.
pub(crate) const ANSWERS_MAX: usize = 4096;

/// Most bytes of questions and answers that are kept of one policy on one thread.
///
/// Source: [`ANSWERS_MAX`] questions of 256 bytes, which is twice what a policy sees that asks for
/// caller, agent and method.
pub(crate) const BYTES_MAX: usize = 1024 * 1024;

/// Longest question whose answer is kept, in bytes of its readable texts and their lengths.
pub(crate) const KEY_BYTES_MAX: usize = 1024;

/// The answers of one policy on one thread.
pub(crate) struct Memo {
    fields: Box<[Field]>,
    /// The map's hash has a secret of its own, so that callers cannot choose names that collide.
    answers: HashMap<Box<[u8]>, Reason>,
    /// The bytes of all keys and reasons.
    bytes: usize,
    /// Kept from question to question, because finding an answer should not allocate.
    key: Vec<u8>,
}

/// What a memo knows of a question.
pub(crate) enum Recalled {
    /// The answer.
    Known(Reason),
    /// No answer yet; this is the key to keep one by.
    Unknown(Key),
    /// No answer, and none should be kept.
    TooLong,
}

/// The readable facts of one question.
pub(crate) struct Key(Box<[u8]>);

impl Memo {
    /// For a policy that can read `reads` and whose answers depend on nothing else. `None` if its
    /// answers are not worth keeping.
    pub(crate) fn of(reads: Fields) -> Option<Self> {
        if reads.iter().any(Field::is_volatile) {
            return None;
        }
        Some(Self {
            fields: reads.iter().collect(),
            answers: HashMap::new(),
            bytes: 0,
            key: Vec::new(),
        })
    }

    /// The answer to `question`, if one is kept.
    pub(crate) fn recall(&mut self, question: &Question<'_>) -> Recalled {
        if !write_key(&mut self.key, &self.fields, question) {
            return Recalled::TooLong;
        }
        match self.answers.get(&*self.key) {
            Some(reason) => Recalled::Known(reason.clone()),
            None => Recalled::Unknown(Key(self.key.as_slice().into())),
        }
    }

    /// Keeps the answer to the question of `key`, if it is the policy's own word.
    pub(crate) fn keep(&mut self, key: Key, reason: &Reason) {
        // What went wrong once may go well the next time.
        let is_its_word = matches!(
            reason,
            Reason::Allowed(_) | Reason::Denied(_) | Reason::Undefined | Reason::NotADecision
        );
        if !is_its_word {
            return;
        }
        let bytes = key.0.len() + reason.detail().map_or(0, str::len);
        if self.answers.len() >= ANSWERS_MAX || self.bytes + bytes > BYTES_MAX {
            self.answers.clear();
            self.bytes = 0;
        }
        if self.answers.insert(key.0, reason.clone()).is_none() {
            self.bytes += bytes;
        }
    }
}

/// Writes the texts of `fields` into `key`, each behind its length. `false` if they are too long.
fn write_key(key: &mut Vec<u8>, fields: &[Field], question: &Question<'_>) -> bool {
    key.clear();
    for field in fields {
        // No text is as long as this, so an unknown one differs from every known one.
        const UNKNOWN: u16 = u16::MAX;
        const { assert!(KEY_BYTES_MAX < UNKNOWN as usize) };
        let Some(text) = field.text(question) else {
            key.extend_from_slice(&UNKNOWN.to_le_bytes());
            continue;
        };
        let Some(length) = u16::try_from(text.len()).ok().filter(|_| text.len() <= KEY_BYTES_MAX)
        else {
            return false;
        };
        key.extend_from_slice(&length.to_le_bytes());
        key.extend_from_slice(text.as_bytes());
    }
    key.len() <= KEY_BYTES_MAX
}
