//! Refusals without a task: the first of a kind is put on record at once, further ones are counted,
//! so that whoever is refused over and over cannot fill the trail, or rotate its records away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use convoke_model::{AuditOutcome, AuditRecord, CapabilityName, OperationKind, Revision};

/// How long further refusals of a kind are counted before their count is put on record. A caller
/// makes two records in it of each kind, however often it asks.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

/// Most kinds that are counted at a time. Callers whose certificates are verified decide how many
/// there are; this bounds the memory that they get by it, at about a kilobyte each.
const KINDS_MAX: usize = 1_024;

/// Counts refusals between their records. Times are of a clock that never goes back.
///
/// Each refusal is in one record: the sum over records of 1 + `repeated` is the number of refusals.
/// What a record cannot be made of now stays counted.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<Kind, Interval>>);

/// Which refusals share a record. All anonymous callers have one name, wherever they come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    caller: Arc<str>,
    operation: OperationKind,
    capability: Option<CapabilityName>,
    reason: &'static str,
    rule: Option<Arc<str>>,
    /// A record says which policy decided, so it stands for decisions of that policy alone.
    policy: Option<Revision>,
}

/// The time after a refusal that was put on record.
#[derive(Debug)]
struct Interval {
    began: Duration,
    /// The last of the further refusals; its `repeated` counts those before it.
    further: Option<AuditRecord>,
}

impl Refusals {
    /// Whether `record` is one that may share a record with others: a refusal that is not about a
    /// task of the caller's. Before policy was asked, a task is only what somebody claims.
    pub(crate) fn concerns(record: &AuditRecord) -> bool {
        match &record.outcome {
            AuditOutcome::Decided(decision) => !decision.is_allowed() && record.task_id.is_none(),
            AuditOutcome::Refused(_) => true,
        }
    }

    /// Hands a refusal to `put`, or counts it if one of its kind was put on record less than an
    /// [`INTERVAL`] ago. Says whether it was handed over.
    ///
    /// # Errors
    ///
    /// Those of `put`. Then the refusal is neither on record nor counted.
    pub(crate) fn take<E>(
        &self,
        mut record: AuditRecord,
        now: Duration,
        mut put: impl FnMut(AuditRecord) -> Result<(), E>,
    ) -> Result<bool, E> {
        let kind = Kind::of(&record);
        let mut kinds = self.lock();
        if let Some(interval) = kinds.get_mut(&kind).filter(|interval| !interval.is_over(now)) {
            interval.count(record);
            return Ok(false);
        }
        let ends = if kinds.contains_key(&kind) {
            Some(kind.clone())
        } else if kinds.len() >= KINDS_MAX {
            let oldest = kinds.iter().min_by_key(|(_, interval)| interval.began);
            oldest.map(|(kind, _)| kind.clone())
        } else {
            None
        };
        if let Some(ends) = ends {
            if let Some(interval) = kinds.get_mut(&ends) {
                interval.write(&mut put)?;
            }
            kinds.remove(&ends);
        }
        record.repeated = 0;
        put(record)?;
        kinds.insert(kind, Interval { began: now, further: None });
        Ok(true)
    }

    /// Hands over what was counted in intervals that are over.
    ///
    /// # Errors
    ///
    /// Those of `put`; what it did not take stays counted.
    pub(crate) fn write_due<E>(
        &self,
        now: Duration,
        mut put: impl FnMut(AuditRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut written = Ok(());
        self.lock().retain(|_, interval| {
            if written.is_ok() && interval.is_over(now) {
                written = interval.write(&mut put);
                return written.is_err();
            }
            true
        });
        written
    }

    /// Hands over all that was counted; intervals go on.
    ///
    /// # Errors
    ///
    /// As of [`write_due`](Self::write_due).
    pub(crate) fn write_all<E>(
        &self,
        mut put: impl FnMut(AuditRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        self.lock().values_mut().try_for_each(|interval| interval.write(&mut put))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, Interval>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn of(record: &AuditRecord) -> Self {
        let (reason, rule, policy) = match &record.outcome {
            AuditOutcome::Decided(decision) => (
                decision.reason.as_str(),
                Some(Arc::clone(&decision.rule)),
                Some(decision.revision.clone()),
            ),
            AuditOutcome::Refused(why) => (*why, None, None),
        };
        Self {
            caller: Arc::clone(&record.caller),
            operation: record.operation,
            capability: record.capability.clone(),
            reason,
            rule,
            policy,
        }
    }
}

impl Interval {
    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.began) >= INTERVAL
    }

    fn count(&mut self, mut record: AuditRecord) {
        let before = self.further.as_ref().map(|last| last.repeated.saturating_add(1));
        record.repeated = before.unwrap_or(0);
        self.further = Some(record);
    }

    fn write<E>(&mut self, put: &mut impl FnMut(AuditRecord) -> Result<(), E>) -> Result<(), E> {
        if let Some(last) = &self.further {
            put(last.clone())?;
            self.further = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use convoke_model::{
        Decision, Reason, RequestId, Revision, SpiffeId, TaskId, TraceContext, UnixMillis,
    };

    use super::*;

    const START: Duration = Duration::from_secs(100);

    /// A refusal of an anonymous caller, at `at` milliseconds.
    fn anonymous(at: u64) -> AuditRecord {
        AuditRecord {
            at: UnixMillis(at),
            request_id: RequestId::parse("r").unwrap(),
            trace: TraceContext::root(1, 1, false),
            agent: SpiffeId::parse("spiffe://example.org/worker").unwrap(),
            caller: "anonymous".into(),
            remote_addr: format!("192.0.2.1:{at}").into(),
            operation: OperationKind::SendMessage,
            capability: None,
            task_id: None,
            params_sha256: None,
            outcome: AuditOutcome::Refused("no_credential"),
            repeated: 0,
        }
    }

    fn decided(reason: Reason, rule: &str) -> AuditOutcome {
        AuditOutcome::Decided(Decision {
            reason,
            rule: rule.into(),
            revision: Revision("rev".into()),
            took: Duration::ZERO,
        })
    }

    /// A trail that takes `room` more records.
    struct Trail {
        records: Vec<AuditRecord>,
        room: usize,
    }

    impl Trail {
        fn new() -> Self {
            Self { records: Vec::new(), room: usize::MAX }
        }

        fn put(&mut self, record: AuditRecord) -> Result<(), &'static str> {
            self.room = self.room.checked_sub(1).ok_or("full")?;
            self.records.push(record);
            Ok(())
        }

        /// Instants and counts, in the order of the trail.
        fn says(&self) -> Vec<(u64, u64)> {
            self.records.iter().map(|record| (record.at.0, record.repeated)).collect()
        }

        fn refusals(&self) -> u64 {
            self.records.iter().map(|record| 1 + record.repeated).sum()
        }
    }

    #[test]
    fn a_flood_makes_few_records_whose_counts_add_up() {
        let (refusals, mut trail) = (Refusals::default(), Trail::new());
        // 10,000 calls in 25 seconds, each from an address of its own.
        for n in 0..10_000 {
            let now = START + Duration::from_micros(2_500 * n);
            refusals.take(anonymous(n), now, |record| trail.put(record)).unwrap();
        }
        let intervals = [(0, 0), (3_999, 3_998), (4_000, 0), (7_999, 3_998), (8_000, 0)];
        assert_eq!(trail.says(), intervals);
        refusals.write_all(|record| trail.put(record)).unwrap();
        assert_eq!((trail.records.len(), trail.refusals()), (6, 10_000));
        assert_eq!(&*trail.records[5].remote_addr, "192.0.2.1:9999");
        // Nothing is written twice.
        refusals.write_all(|record| trail.put(record)).unwrap();
        refusals.write_due(START * 2, |record| trail.put(record)).unwrap();
        assert_eq!(trail.records.len(), 6);
    }

    #[test]
    fn a_count_is_written_when_its_interval_is_over() {
        let (refusals, mut trail) = (Refusals::default(), Trail::new());
        for n in 0..3 {
            refusals.take(anonymous(n), START, |record| trail.put(record)).unwrap();
        }
        let before = START + INTERVAL - Duration::from_nanos(1);
        refusals.write_due(before, |record| trail.put(record)).unwrap();
        assert_eq!(trail.says(), [(0, 0)]);
        refusals.write_due(START + INTERVAL, |record| trail.put(record)).unwrap();
        assert_eq!(trail.says(), [(0, 0), (2, 1)]);
        assert!(refusals.lock().is_empty());
    }

    #[test]
    fn what_is_written_early_goes_on_to_be_counted() {
        let (refusals, mut trail) = (Refusals::default(), Trail::new());
        for n in 0..4 {
            refusals.take(anonymous(n), START, |record| trail.put(record)).unwrap();
            refusals.write_all(|record| trail.put(record)).unwrap();
        }
        assert_eq!(trail.says(), [(0, 0), (1, 0), (2, 0), (3, 0)]);
        let further = refusals.take(anonymous(4), START, |record| trail.put(record));
        assert_eq!((further, trail.records.len()), (Ok(false), 4));
    }

    #[test]
    fn each_kind_has_a_record_of_its_own() {
        let (refusals, mut trail) = (Refusals::default(), Trail::new());
        let mut check = |change: &dyn Fn(&mut AuditRecord), is_another: bool| {
            let mut record = anonymous(0);
            change(&mut record);
            let first = refusals.take(record.clone(), START, |record| trail.put(record));
            assert_eq!(first, Ok(is_another), "{record:?}");
            assert_eq!(refusals.take(record, START, |record| trail.put(record)), Ok(false));
        };
        let denied = |text: &str| Reason::Denied(Some(text.to_owned()));
        check(&|_| {}, true);
        check(&|record| record.caller = "spiffe://example.org/a".into(), true);
        check(&|record| record.caller = "spiffe://example.org/b".into(), true);
        check(&|record| record.operation = OperationKind::SendStreamingMessage, true);
        check(&|record| record.capability = Some(CapabilityName::parse("echo").unwrap()), true);
        check(&|record| record.outcome = AuditOutcome::Refused("foreign_tenant"), true);
        check(&|record| record.outcome = decided(denied("x"), "one"), true);
        check(&|record| record.outcome = decided(denied("y"), "one"), false);
        check(&|record| record.outcome = decided(denied("x"), "other"), true);
        check(&|record| record.outcome = decided(Reason::OverTime, "one"), true);
        check(&|record| record.remote_addr = "198.51.100.7:1".into(), false);
    }

    #[test]
    fn only_refusals_without_a_task_share_records() {
        let mut record = anonymous(0);
        assert!(Refusals::concerns(&record));
        record.outcome = decided(Reason::Undefined, "rule");
        assert!(Refusals::concerns(&record));
        record.task_id = Some(TaskId::parse("t").unwrap());
        assert!(!Refusals::concerns(&record));
        let mut claimed = anonymous(0);
        claimed.task_id = Some(TaskId::parse("t").unwrap());
        assert!(Refusals::concerns(&claimed), "nobody knows whether there is such a task");
        let mut allowed = anonymous(0);
        allowed.outcome = decided(Reason::Allowed(None), "rule");
        assert!(!Refusals::concerns(&allowed));
    }

    #[test]
    fn the_oldest_kind_makes_room_and_keeps_its_count() {
        let (refusals, mut trail) = (Refusals::default(), Trail::new());
        let kinds = u64::try_from(KINDS_MAX).unwrap();
        for n in 0..=kinds {
            let mut record = anonymous(n);
            record.caller = format!("spiffe://example.org/{n}").into();
            for _ in 0..3 {
                let now = START + Duration::from_millis(n);
                refusals.take(record.clone(), now, |record| trail.put(record)).unwrap();
            }
        }
        assert_eq!(refusals.lock().len(), KINDS_MAX);
        assert_eq!(trail.says()[KINDS_MAX..], [(0, 1), (kinds, 0)]);
        refusals.write_all(|record| trail.put(record)).unwrap();
        assert_eq!(trail.refusals(), 3 * (kinds + 1));
    }

    #[test]
    fn what_the_trail_does_not_take_stays_counted() {
        let (refusals, mut trail) = (Refusals::default(), Trail::new());
        trail.room = 0;
        let later = START + INTERVAL;
        assert_eq!(refusals.take(anonymous(0), START, |record| trail.put(record)), Err("full"));
        trail.room = 1;
        for n in 1..4 {
            refusals.take(anonymous(n), START, |record| trail.put(record)).unwrap();
        }
        assert_eq!(refusals.write_all(|record| trail.put(record)), Err("full"));
        assert_eq!(refusals.write_due(later, |record| trail.put(record)), Err("full"));
        assert_eq!(refusals.take(anonymous(4), later, |record| trail.put(record)), Err("full"));
        trail.room = usize::MAX;
        refusals.write_due(later, |record| trail.put(record)).unwrap();
        assert_eq!(trail.says(), [(1, 0), (3, 1)]);
    }
}
