//! Goal: a sample has every queue with its socket, owner and threads, and costs no walk over /proc while nothing
//! changes. Method: trees that look like a large machine's /proc.

use std::fs;

use super::super::fake::Tree;
use super::*;

fn sampler(tree: &Tree, wanted: &[&str]) -> Sampler {
    let wanted = wanted.iter().map(|range| range.parse().unwrap()).collect();
    Sampler::open(tree.root(), None, wanted, Details::default()).unwrap()
}

fn read(sampler: &mut Sampler, ms: u64) -> Sample {
    let mut sample = Sample::default();
    sampler.read(Duration::from_millis(ms), false, &mut sample).unwrap();
    sample
}

/// 128 queues of one process, each with a socket and a thread of its own.
fn large() -> Tree {
    let tree = Tree::new();
    let inodes: Vec<u64> = (0..128).map(|queue| 1000 + queue).collect();
    let names: Vec<String> = (0..128).map(|queue| format!("fanq-{queue}")).collect();
    let threads: Vec<_> =
        std::iter::once(("fanq", 1)).chain(names.iter().map(|name| (name.as_str(), 7))).collect();
    // Not in order, as the kernel's table, a hash table, is not.
    tree.queues((0..128).rev().map(|queue| (queue, 5000 + u32::from(queue), 0, 9)));
    tree.sockets(inodes.iter().map(|inode| (u32::try_from(inode + 4000).unwrap(), *inode)));
    tree.process(77, "fanq", &inodes, &threads);
    tree.process(78, "other", &[], &[("other", 5)]);
    tree
}

#[test]
fn a_large_machine_is_read_whole_and_in_order() {
    let sample = read(&mut sampler(&large(), &[]), 0);
    assert_eq!(sample.queues.len(), 128);
    for (number, queue) in (0..).zip(&sample.queues) {
        assert_eq!((queue.row.queue, queue.row.id_sequence), (number, 9));
        assert_eq!(queue.socket.map(|socket| socket.inode), Some(1000 + u64::from(number)));
        let owner = queue.owner.as_ref().unwrap();
        assert_eq!((owner.pid, &*owner.name, &*owner.command), (77, "fanq", "fanq run"));
        assert_eq!(queue.process.as_ref().unwrap().threads.len(), 129);
    }
    let thread = &sample.queues[3].process.as_ref().unwrap().threads[4];
    assert_eq!((&*thread.name, thread.used, thread.cpu), ("fanq-3", Duration::from_millis(70), 4));
}

#[test]
fn only_wanted_queues_are_read() {
    let sample = read(&mut sampler(&large(), &["2-4", "100", "200-300"]), 0);
    let queues: Vec<_> = sample.queues.iter().map(|queue| queue.row.queue).collect();
    assert_eq!(queues, [2, 3, 4, 100]);
}

/// The descriptors are taken away: if anybody looked again, the owner would be gone.
#[test]
fn owners_are_looked_for_only_when_something_changes() {
    let tree = large();
    let mut sampler = sampler(&tree, &[]);
    read(&mut sampler, 0);
    fs::remove_dir_all(tree.path("proc/77/fd")).unwrap();
    assert!(read(&mut sampler, 100).queues.iter().all(|queue| queue.owner.is_some()));

    // A new socket appears: known owners stay, and its own is found.
    tree.sockets((0..128).map(|n| (5000 + n, 1000 + u64::from(n))).chain([(9000, 7)]));
    tree.queues((0..4).map(|n| (n, 5000 + u32::from(n), 0, 9)).chain([(200, 9000, 0, 0)]));
    tree.process(79, "suricata", &[7], &[("Suricata-Main", 0)]);
    let sample = read(&mut sampler, 200);
    let pids: Vec<_> = sample.queues.iter().map(|q| q.owner.as_ref().unwrap().pid).collect();
    assert_eq!(pids, [77, 77, 77, 77, 79]);
}

#[test]
fn a_socket_whose_process_goes_is_looked_for_again() {
    let tree = large();
    let mut sampler = sampler(&tree, &["0"]);
    read(&mut sampler, 0);
    fs::remove_dir_all(tree.path("proc/77")).unwrap();
    tree.process(90, "heir", &[1000], &[("heir", 0)]);
    assert_eq!(read(&mut sampler, 2000).queues[0].owner.as_ref().unwrap().pid, 77);
    assert_eq!(read(&mut sampler, 4000).queues[0].owner.as_ref().unwrap().pid, 90);
}

#[test]
fn threads_are_read_once_a_second_however_often_samples_are_taken() {
    let tree = large();
    let mut sampler = sampler(&tree, &["0"]);
    let at = |sample: &Sample| sample.queues[0].process.as_ref().unwrap().at.as_millis();
    let times: Vec<_> = (0..=20).map(|n| at(&read(&mut sampler, n * 100))).collect();
    let mut read_at = times.clone();
    read_at.dedup();
    assert_eq!(read_at, [0, 1000, 2000]);
}

#[test]
fn an_owner_that_cannot_be_seen_is_none_and_is_looked_for_again_later() {
    let tree = Tree::new();
    tree.queues([(0, 5000, 0, 0)].into_iter());
    tree.sockets([(5000, 10)].into_iter());
    let mut sampler = sampler(&tree, &[]);
    assert_eq!(read(&mut sampler, 0).queues[0].owner, None);
    tree.process(90, "late", &[10], &[("late", 0)]);
    assert_eq!(read(&mut sampler, 1000).queues[0].owner, None, "looked too soon");
    assert!(read(&mut sampler, 6000).queues[0].owner.is_some());
}

#[test]
fn a_process_id_with_nothing_else_and_hostile_names_do_no_harm() {
    let tree = large();
    fs::create_dir_all(tree.path("proc/1/fd")).unwrap();
    fs::create_dir_all(tree.path("proc/99999999999")).unwrap();
    tree.write("proc/77/comm", "\x1b[31mred\n");
    tree.write("proc/77/task/77/stat", "77 (");
    let sample = read(&mut sampler(&tree, &["0"]), 0);
    assert_eq!(sample.queues[0].owner.as_ref().unwrap().name, "?[31mred");
    assert_eq!(sample.queues[0].process.as_ref().unwrap().threads.len(), 128);
}

#[test]
fn the_fanq_to_be_asked_is_the_owner_or_the_one_that_started_it() {
    let tree = Tree::new();
    tree.queues((0..4).map(|queue| (queue, 5000 + u32::from(queue), 0, 0)));
    tree.sockets((0..4).map(|number| (5000 + number, 10 + u64::from(number))));
    tree.process(50, "fanq", &[10], &[]);
    tree.process(60, "my-ips", &[11], &[]);
    tree.process(61, "python3", &[12], &[]);
    tree.process(62, "sh", &[], &[]);
    tree.process(70, "stranger", &[13], &[]);
    // 60 by fanq 50, 61 by a shell under it; 70's line goes round, and 50's ends.
    for (child, parent) in [(60, 50), (62, 50), (61, 62), (70, 71), (71, 70), (50, 0)] {
        tree.descends(child, parent);
    }
    let sample = read(&mut sampler(&tree, &[]), 0);
    let asked: Vec<_> = sample.queues.iter().map(|q| q.owner.as_ref().unwrap().fanq).collect();
    assert_eq!(asked, [Some(50), Some(50), Some(50), None]);
}

/// A service manager that keeps the sockets (systemd's `FileDescriptorStoreMax=`) has them, too.
#[test]
fn a_service_manager_is_no_owner_of_what_it_keeps_for_another() {
    let tree = Tree::new();
    tree.queues((0..2).map(|queue| (queue, 5000 + u32::from(queue), 0, 0)));
    tree.sockets((0..2).map(|number| (5000 + number, 10 + u64::from(number))));
    tree.process(1, "systemd", &[10, 11], &[]);
    tree.process(50, "fanq", &[10], &[]);
    let sample = read(&mut sampler(&tree, &[]), 0);
    let owners = sample.queues.iter().map(|queue| queue.owner.as_ref().unwrap());
    let owners: Vec<_> = owners.map(|owner| (owner.pid, &*owner.name, owner.fanq)).collect();
    assert_eq!(owners, [(50, "fanq", Some(50)), (1, "systemd", None)]);
}

#[test]
fn no_table_is_an_error_that_says_what_to_do() {
    let tree = Tree::new();
    fs::remove_file(tree.path("proc/net/netfilter/nfnetlink_queue")).unwrap();
    let open = |pid| Sampler::open(tree.root(), pid, Vec::new(), Details::default());
    let error = format!("{:#}", open(None).unwrap_err());
    assert!(error.contains("modprobe nfnetlink_queue"), "{error}");
    let error = format!("{:#}", open(Some(4)).unwrap_err());
    assert!(error.contains("proc/4/net") && error.contains("no such process"), "{error}");
}
