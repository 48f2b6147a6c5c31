use futures_util::FutureExt;

use super::*;

fn event(bytes: usize, state: Option<TaskState>) -> Shown {
    Shown { bytes: Bytes::from(vec![b'x'; bytes]), seq: 0, state }
}

/// How many events there are for `subscriber`, and its end.
fn check(subscriber: &Subscriber, expected: Option<(usize, Option<End>)>) {
    let found = subscriber.next().now_or_never();
    assert_eq!(found.map(|(events, end)| (events.len(), end)), expected);
}

#[test]
fn a_subscriber_follows_as_far_as_it_wanted() {
    use TaskState::{Completed, InputRequired, Working};
    let audience = Audience::default();
    let (sender, watcher) = (Subscriber::new(Until::Interrupted), Subscriber::new(Until::Ended));
    audience.add(&sender);
    audience.add(&watcher);
    audience.show(&[event(1, Some(Working)), event(1, None)]);
    check(&sender, Some((2, None)));
    check(&sender, None);
    audience.show(&[event(1, Some(InputRequired)), event(1, Some(Working))]);
    check(&sender, Some((1, Some(End::Complete))));
    check(&watcher, Some((4, None)));
    audience.show(&[event(1, Some(Completed)), event(1, None)]);
    check(&watcher, Some((1, Some(End::Complete))));
    assert!(audience.account().is_none());
}

#[test]
fn who_is_behind_is_cut_and_the_others_go_on() {
    for (bytes, fit) in [(1, EVENTS_MAX), (BYTES_MAX / 4, 4), (BYTES_MAX * 4, 1)] {
        let audience = Audience::default();
        let (slow, quick) = (Subscriber::new(Until::Ended), Subscriber::new(Until::Ended));
        audience.add(&slow);
        audience.add(&quick);
        for _ in 0..fit {
            audience.show(&[event(bytes, None)]);
            check(&quick, Some((1, None)));
        }
        audience.show(&[event(bytes, None)]);
        check(&quick, Some((1, None)));
        check(&slow, Some((0, Some(End::TooSlow))));
        audience.remove(&quick);
        assert!(audience.account().is_none(), "nothing more is kept for the slow one");
    }
}

#[test]
fn a_large_result_and_the_end_are_taken_together() {
    let audience = Audience::default();
    let subscriber = Subscriber::new(Until::Ended);
    audience.add(&subscriber);
    let end = event(1, Some(TaskState::Completed));
    audience.show(&[event(BYTES_MAX * 8, None), end]);
    check(&subscriber, Some((1, None)));
    check(&subscriber, Some((1, Some(End::Complete))));
}

/// The events from number `first` to `last`, the last of which brings the task to `state`.
fn events(first: u64, last: u64, state: Option<TaskState>) -> Vec<Shown> {
    let bytes = |seq: u64| Bytes::from(seq.to_string());
    (first..=last)
        .map(|seq| Shown { bytes: bytes(seq), seq, state: state.filter(|_| seq == last) })
        .collect()
}

/// Reads from a journal that has all events by then, two at a time, while `meanwhile` happens
/// after each time, and gives what it showed and where it came to.
fn replay(subscriber: &Subscriber, mut meanwhile: impl FnMut(u64)) -> (Vec<u64>, u64) {
    let (mut shown, mut at) = (Vec::new(), 0);
    loop {
        match subscriber.replays(at) {
            Replays::Show(events) => shown.extend(events.iter().map(number)),
            Replays::Read(until) => {
                let page = (at + 1..=until).take(2).map(|seq| Bytes::from(seq.to_string()));
                let page: VecDeque<_> = page.collect();
                at += u64::try_from(page.len()).unwrap();
                subscriber.take_page(page);
                meanwhile(at);
            }
            Replays::Done => return (shown, at),
        }
    }
}

fn number(event: &Bytes) -> u64 {
    std::str::from_utf8(event).unwrap().parse().unwrap()
}

#[test]
fn who_reads_from_the_journal_is_not_behind_and_comes_to_where_the_task_is() {
    let audience = Audience::default();
    let subscriber = Subscriber::new(Until::Ended);
    subscriber.replay_until(5);
    audience.add(&subscriber);
    let many = u64::try_from(EVENTS_MAX).unwrap() * 2;
    let (shown, at) = replay(&subscriber, |at| {
        if at == 2 {
            audience.show(&events(6, many, None));
        }
        assert_eq!(audience.catch_up().now_or_never(), Some(()), "nobody waits for it");
    });
    assert_eq!((shown, at), ((1..=many).collect(), many));
    check(&subscriber, None);
    audience.show(&events(many + 1, many + 3, Some(TaskState::Completed)));
    let (rest, end) = subscriber.next().now_or_never().unwrap();
    let rest: Vec<_> = rest.iter().map(number).collect();
    assert_eq!((rest, end), ((many + 1..=many + 3).collect(), Some(End::Complete)));
}

#[test]
fn who_reads_from_the_journal_sees_the_end_that_came_meanwhile() {
    for end in [End::Complete, End::Lost] {
        let audience = Audience::default();
        let subscriber = Subscriber::new(Until::Ended);
        subscriber.replay_until(5);
        audience.add(&subscriber);
        let (shown, _) = replay(&subscriber, |at| match (at, end) {
            (2, End::Complete) => audience.show(&events(6, 9, Some(TaskState::Completed))),
            (2, _) => audience.end(end),
            _ => {}
        });
        assert_eq!(shown, (1..=if end == End::Complete { 9 } else { 5 }).collect::<Vec<_>>());
        check(&subscriber, Some((0, Some(end))));
    }
}

#[test]
fn who_is_cut_while_it_reads_from_the_journal_reads_no_more() {
    let subscriber = Subscriber::new(Until::Ended);
    subscriber.replay_until(9);
    let (shown, at) = replay(&subscriber, |at| {
        if at == 4 {
            subscriber.cut();
        }
    });
    assert_eq!((shown, at), (vec![1, 2], 4));
    subscriber.take_page([Bytes::from_static(b"late")].into());
    check(&subscriber, Some((0, Some(End::Crowded))));
}

#[tokio::test(start_paused = true)]
async fn a_task_waits_for_a_subscriber_only_so_long() {
    let audience = Audience::default();
    let subscriber = Subscriber::new(Until::Ended);
    audience.add(&subscriber);
    let began = Instant::now();
    audience.catch_up().await;
    assert_eq!(began.elapsed(), Duration::ZERO, "it is not behind");
    let half = vec![event(1, None); EVENTS_MAX / 2];
    audience.show(&half);
    let ((), (events, _)) = tokio::join!(audience.catch_up(), subscriber.next());
    assert_eq!((events.len(), began.elapsed()), (half.len(), Duration::ZERO));
    audience.show(&half);
    let other = Subscriber::new(Until::Ended);
    audience.add(&other);
    other.take(&half);
    // Two are waited for no longer than one, and none a second time.
    for _ in 0..2 {
        audience.catch_up().await;
        // Timers count whole milliseconds.
        assert_eq!(began.elapsed().as_millis() / 10, PATIENCE.as_millis() / 10);
    }
    // Whoever reads after all is waited for again, as long as that is worth.
    check(&other, Some((half.len(), None)));
    other.take(&half);
    audience.catch_up().await;
    let earned = EARNED_BY_EVENT * 128 + EARNED_BY_BYTE * 128;
    assert_eq!(began.elapsed().as_millis() / 10, (PATIENCE + earned).as_millis() / 10);
}

#[tokio::test]
async fn an_end_wakes_who_waits() {
    let audience = Audience::default();
    let subscriber = Subscriber::new(Until::Ended);
    audience.add(&subscriber);
    let (next, ()) = tokio::join!(subscriber.next(), async { audience.end(End::Lost) });
    assert_eq!(next, (VecDeque::new(), Some(End::Lost)));
}
