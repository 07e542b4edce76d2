//! Runs that are written beside the reading. What the other thread would do, is done by hand.

use std::fs;

use super::tests::{all, home, logged, open, restore_in_steps, two_stores};
use crate::error::ErrorKind;
use crate::record::{Headers, RecordBatch};
use crate::state::work_queue::WorkQueue;
use crate::state::{HeldBack, Reach, TaskStores};

const END: i64 = 20_000;

/// The rows of a changelog up to an offset.
fn rows_up_to(offset: i64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut model = TaskStores::in_memory(&[two_stores().remove(0).spec], 0);
    model.restore(0, &logged(0..offset), offset).unwrap();
    all(&mut model, 0)
}

/// Reads until a run is under way: how far.
fn read_a_run(stores: &mut TaskStores, queue: &WorkQueue, from: i64) -> i64 {
    let mut at = from;
    while queue.is_idle() {
        restore_in_steps(stores, 0, at, at + 100, END);
        at += 100;
        assert!(at < END);
    }
    at
}

#[test]
fn the_next_run_is_read_while_one_is_written_and_the_offset_moves_when_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut stores = open(&home(folder.path(), 0));
    let (queue, works) = WorkQueue::new();
    stores.set_work_queue(Some(&queue));
    let read = read_a_run(&mut stores, &queue, 0);
    restore_in_steps(&mut stores, 0, read, read + 200, END);
    assert_eq!(stores.offset(0), None, "it is under way");
    assert!(works.do_next());
    assert!(queue.is_idle());
    restore_in_steps(&mut stores, 0, read + 200, read + 300, END);
    assert_eq!((stores.offset(0), stores.durable_offset(0).unwrap()), (Some(read), Some(read)));
    assert_eq!(all(&mut stores, 0), rows_up_to(read));
    let next = read_a_run(&mut stores, &queue, read + 300);
    assert!(works.do_next());
    // The rest goes to the queue too, and is asked for until it is there.
    restore_in_steps(&mut stores, 0, next, next + 500, next + 500);
    assert_eq!(stores.end_restore(0).unwrap(), HeldBack::UnderWay);
    assert_eq!(stores.end_restore(0).unwrap(), HeldBack::UnderWay);
    assert_eq!(stores.offset(0), Some(next));
    assert!(works.do_next());
    assert_eq!(stores.end_restore(0).unwrap(), HeldBack::Written);
    assert_eq!(stores.offset(0), Some(next + 500));
    assert_eq!(all(&mut stores, 0), rows_up_to(next + 500));
}

#[test]
fn stores_that_change_hands_wait_for_what_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut stores = open(&home(folder.path(), 0));
    let (queue, works) = WorkQueue::new();
    stores.set_work_queue(Some(&queue));
    let read = read_a_run(&mut stores, &queue, 0);
    restore_in_steps(&mut stores, 0, read, read + 200, END);
    std::thread::scope(|scope| {
        scope.spawn(move || while works.do_next() {});
        stores.finish_restore(0).unwrap();
        assert_eq!(stores.offset(0), Some(read + 200));
        // Given up, what is under way is waited for, and what is collected is not the store's.
        let next = read_a_run(&mut stores, &queue, read + 200);
        stores.give_up_restore(0).unwrap();
        assert_eq!(stores.offset(0), Some(next));
        assert_eq!(all(&mut stores, 0), rows_up_to(next));
        // Dropped as well: the folder is free afterwards.
        read_a_run(&mut stores, &queue, next);
        drop(stores);
        let mut stores = open(&home(folder.path(), 0));
        let offset = stores.offset(0).unwrap();
        assert!(offset > next);
        assert_eq!(all(&mut stores, 0), rows_up_to(offset));
        queue.close();
    });
}

#[test]
fn a_run_that_cannot_be_written_is_told_with_a_later_step_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut stores = open(&home(folder.path(), 0));
    let (queue, works) = WorkQueue::new();
    stores.set_work_queue(Some(&queue));
    let first = read_a_run(&mut stores, &queue, 0);
    works.do_next();
    restore_in_steps(&mut stores, 0, first, first + 100, END);
    let read = read_a_run(&mut stores, &queue, first + 100);
    let in_the_way = folder.path().join("app/0_3/run-0");
    fs::create_dir(&in_the_way).unwrap();
    works.do_next();
    let error =
        stores.restore_towards(0, &logged(read..read + 1), Reach { next_offset: read + 1, end: END }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    stores.give_up_restore(0).unwrap();
    assert_eq!(stores.offset(0), Some(first));
    fs::remove_dir(&in_the_way).unwrap();
    // One that nobody does any more is told as well.
    read_a_run(&mut stores, &queue, first);
    drop(works);
    let error = stores.end_restore(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    stores.give_up_restore(0).unwrap();
    // And from then on the store writes its runs by itself.
    restore_in_steps(&mut stores, 0, first, END, END);
    assert_eq!(stores.end_restore(0).unwrap(), HeldBack::Written);
    assert_eq!((stores.offset(0), all(&mut stores, 0)), (Some(END), rows_up_to(END)));
}

#[test]
fn of_two_runs_the_one_that_was_not_written_before_the_end_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut stores = open(&home(folder.path(), 0));
    let (queue, works) = WorkQueue::new();
    stores.set_work_queue(Some(&queue));
    let first = read_a_run(&mut stores, &queue, 0);
    works.do_next();
    restore_in_steps(&mut stores, 0, first, first + 100, END);
    read_a_run(&mut stores, &queue, first + 100);
    drop(works);
    drop(stores);
    let mut stores = open(&home(folder.path(), 0));
    assert_eq!((stores.offset(0), all(&mut stores, 0)), (Some(first), rows_up_to(first)));
    restore_in_steps(&mut stores, 0, first, END, END);
    stores.finish_restore(0).unwrap();
    assert_eq!((stores.offset(0), all(&mut stores, 0)), (Some(END), rows_up_to(END)));
}

#[test]
fn many_updates_of_few_keys_take_no_more_memory_than_a_run_and_are_not_written_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path(), 0);
    let mut stores = open(&home);
    let bytes_max = home.memory.run_bytes_max();
    for first in (0..100_000_i64).step_by(500) {
        let mut batch = RecordBatch::default();
        for offset in first..first + 500 {
            batch.push(offset, 1, Some(&(offset % 300).to_be_bytes()), Some(&[7; 50]), Headers::new()).unwrap();
        }
        stores.restore_towards(0, &batch, Reach { next_offset: first + 500, end: 200_000 }).unwrap();
        let held = stores.stores[0].run.as_ref().map_or(0, |run| run.bytes());
        assert!((1..bytes_max).contains(&held), "{held}");
    }
    assert_eq!(stores.offset(0), None, "nothing had to be written");
    stores.finish_restore(0).unwrap();
    assert_eq!((stores.offset(0), all(&mut stores, 0).len()), (Some(100_000), 300));
}
