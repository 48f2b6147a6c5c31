use super::*;

const WAIT: Duration = Duration::from_millis(100);

fn admission(places: usize) -> Arc<Admission> {
    Admission::new(places, WAIT, PathMetrics::default())
}

fn caller(name: &str) -> Arc<str> {
    name.into()
}

fn now(admission: &Arc<Admission>, caller: &Arc<str>) -> Option<Place> {
    admission.enter_now(caller).unwrap()
}

/// Asks for a place in a task of its own, which stands in line when this returns.
async fn line_up(
    admission: &Arc<Admission>,
    caller: &Arc<str>,
) -> tokio::task::JoinHandle<Result<Place, Full>> {
    let before = admission.state().waiting;
    let (theirs, caller) = (Arc::clone(admission), Arc::clone(caller));
    let asked = tokio::spawn(async move { theirs.enter(&caller, None).await });
    while admission.state().waiting == before {
        tokio::task::yield_now().await;
    }
    asked
}

fn is_empty(admission: &Admission) -> bool {
    let state = admission.state();
    let counts = state.at_work + state.urgent + state.waiting;
    counts == 0
        && state.callers.is_empty()
        && state.turns.is_empty()
        && state.standing_since.is_none()
}

#[tokio::test(start_paused = true)]
async fn one_caller_has_a_quarter_and_the_others_the_rest() {
    let admission = admission(8);
    let (ann, ben) = (caller("ann"), caller("ben"));
    let first = now(&admission, &ann).unwrap();
    let _second = now(&admission, &ann).unwrap();
    assert!(now(&admission, &ann).is_none());
    let refused = admission.enter(&ann, None).await.map(drop);
    assert_eq!(refused, Err(Full::Caller));
    assert_eq!(Full::Caller.fault().code, FaultCode::ResourceExhausted);
    let _bens = now(&admission, &ben).unwrap();
    drop(first);
    assert!(now(&admission, &ann).is_some());
}

#[tokio::test(start_paused = true)]
async fn all_callers_together_have_no_more_than_all() {
    let admission = admission(4);
    let callers: Vec<_> = (0..5).map(|number| caller(&number.to_string())).collect();
    let mut held: Vec<_> = callers[..4].iter().map(|own| now(&admission, own).unwrap()).collect();
    let began = Instant::now();
    let refused = admission.enter(&callers[4], None).await.map(drop);
    assert_eq!((refused, began.elapsed() >= WAIT), (Err(Full::All), true));
    assert_eq!(Full::All.fault().code, FaultCode::Unavailable);
    let waiting = line_up(&admission, &callers[4]).await;
    held.pop();
    assert!(waiting.await.unwrap().is_ok());
    held.clear();
    assert!(is_empty(&admission));
}

#[tokio::test(start_paused = true)]
async fn callers_take_turns() {
    let admission = admission(1);
    let (ann, ben) = (caller("ann"), caller("ben"));
    let held = now(&admission, &caller("first")).unwrap();
    // One place means a line of one for each caller.
    let anns = line_up(&admission, &ann).await;
    let turn = admission.state().turns.front().cloned();
    assert_eq!(turn, Some(Arc::clone(&ann)));
    // The line as a whole is as long as there are places.
    assert_eq!(admission.enter(&ben, None).await.map(drop), Err(Full::All));
    drop(held);
    drop(anns.await.unwrap().unwrap());
    assert!(is_empty(&admission));
}

#[tokio::test(start_paused = true)]
async fn in_a_full_line_the_oldest_gives_way() {
    let admission = admission(8);
    let ann = caller("ann");
    let held = [now(&admission, &ann).unwrap(), now(&admission, &ann).unwrap()];
    let oldest = line_up(&admission, &ann).await;
    let second = line_up(&admission, &ann).await;
    let (theirs, own) = (Arc::clone(&admission), Arc::clone(&ann));
    let youngest = tokio::spawn(async move { theirs.enter(&own, None).await });
    assert_eq!(oldest.await.unwrap().map(drop), Err(Full::Caller));
    drop(held);
    assert!(second.await.unwrap().is_ok() && youngest.await.unwrap().is_ok());
    assert!(is_empty(&admission));
}

/// The queue's own half of [`Admission::enter`]: what waits, and until when.
fn stand(admission: &Arc<Admission>, name: &str) -> (Waiting, Instant) {
    match admission.stand_in_line(&caller(name)) {
        Ok(Standing::Waiting(waiting, until)) => (waiting, until),
        Ok(Standing::Place(_)) => panic!("{name} has a place"),
        Err(full) => panic!("{full}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_stands_serves_the_latest_and_refuses_quickly() {
    let admission = admission(8);
    let name = |number: usize| caller(&(number / 2).to_string());
    let mut held: Vec<_> = (0..8).map(|number| now(&admission, &name(number)).unwrap()).collect();
    let (mut early, until) = stand(&admission, "ann");
    assert_eq!(until, Instant::now() + WAIT);
    let (mut later, until) = stand(&admission, "ann");
    assert_eq!(until, Instant::now() + WAIT, "a burst may wait");

    // First come, first served, while the line is young.
    held.pop();
    let place = early.called.try_recv().unwrap();
    assert!(later.called.try_recv().is_err());
    tokio::time::advance(WAIT + Duration::from_millis(1)).await;
    let (mut latest, until) = stand(&admission, "ann");
    assert_eq!(until, Instant::now() + WAIT_UNDER_PRESSURE);
    drop(place);
    assert!(latest.called.try_recv().is_ok());
    assert!(later.called.try_recv().is_ok(), "the place was given back at once");
    drop((early, later, latest, held));
    assert!(is_empty(&admission));
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_leaves_nothing() {
    let admission = admission(4);
    let held: Vec<_> =
        (0..4).map(|number| now(&admission, &caller(&number.to_string())).unwrap()).collect();
    for number in 0..4 {
        let waiting = line_up(&admission, &caller(&format!("ann {number}"))).await;
        waiting.abort();
        assert!(waiting.await.is_err_and(|error| error.is_cancelled()));
    }
    assert_eq!(admission.state().waiting, 0);
    // A place that is handed to somebody who is leaving is not lost.
    let waiting = line_up(&admission, &caller("ben")).await;
    waiting.abort();
    drop(held);
    assert!(waiting.await.is_err());
    assert!(is_empty(&admission));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait() {
    let admission = admission(1);
    let _held = now(&admission, &caller("ann")).unwrap();
    let began = Instant::now();
    let soon = began + Duration::from_millis(3);
    assert!(admission.enter(&caller("ben"), Some(soon)).await.is_err());
    assert!(began.elapsed() < WAIT);
}

#[tokio::test(start_paused = true)]
async fn what_is_urgent_does_not_wait() {
    let admission = admission(4);
    let ann = caller("ann");
    let _held: Vec<_> =
        (0..4).map(|number| now(&admission, &caller(&number.to_string())).unwrap()).collect();
    assert!(now(&admission, &ann).is_none());
    let urgent: Vec<_> =
        (0..URGENT_MIN / 4).map(|_| admission.enter_urgently(&ann).unwrap()).collect();
    assert_eq!(admission.enter_urgently(&ann).map(drop), Err(Full::Caller));
    assert!(admission.enter_urgently(&caller("ben")).is_ok());
    drop(urgent);
    assert!(admission.enter_urgently(&ann).is_ok());
}

/// Any order of coming, going and giving up leaves no place taken and nobody waiting.
#[tokio::test(start_paused = true)]
async fn places_are_never_lost() {
    let admission = admission(6);
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut tasks = Vec::new();
    for _ in 0..2_000 {
        let own = caller(&random(5).to_string());
        let (theirs, hold, patience) =
            (Arc::clone(&admission), random(30), Duration::from_millis(random(150)));
        tasks.push(tokio::spawn(async move {
            let place = tokio::time::timeout(patience, theirs.enter(&own, None)).await;
            if let Ok(Ok(place)) = place {
                tokio::time::sleep(Duration::from_millis(hold)).await;
                drop(place);
            }
        }));
        {
            let state = admission.state();
            assert!(state.at_work <= 6 && state.waiting <= 6);
            assert!(state.callers.values().all(|share| share.at_work <= 2));
            let waiting: usize = state.callers.values().map(|share| share.waiting.len()).sum();
            assert_eq!(waiting, state.waiting);
        }
        tokio::time::advance(Duration::from_millis(random(4))).await;
        tokio::task::yield_now().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(is_empty(&admission));
}
