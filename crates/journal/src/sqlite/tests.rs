#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::contract;

fn options(directory: &std::path::Path, durability: Durability) -> SqliteOptions {
    SqliteOptions {
        directory: directory.into(),
        durability,
        retention: Retention::default(),
        fatal: Box::new(|why| panic!("{why}")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    for durability in [Durability::Strict, Durability::Relaxed] {
        let directories = Mutex::new(Vec::new());
        let make = |sink| -> Arc<dyn Journal> {
            let directory = tempfile::tempdir().unwrap();
            let journal = SqliteJournal::open(options(directory.path(), durability), sink).unwrap();
            directories.lock().unwrap().push(directory);
            Arc::new(journal)
        };
        contract::check_all(make).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_outlives_its_process() {
    for durability in [Durability::Strict, Durability::Relaxed] {
        let directory = tempfile::tempdir().unwrap();
        let open = |sink| -> Arc<dyn Journal> {
            Arc::new(SqliteJournal::open(options(directory.path(), durability), sink).unwrap())
        };
        contract::check_restart(open).await;
    }
}
