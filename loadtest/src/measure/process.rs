//! What the kernel says of a process: its processor time to the nanosecond, its memory.
//!
//! Processor time is the scheduler's own (`schedstat`), summed over all threads: that of `/proc/PID/stat` is sampled at
//! ticks of 10 ms. It is read while the server has nothing to do, so that nothing is under way that is not in it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Kernel threads have this parent (`kthreadd`).
const KERNEL_PARENT: &str = "2";

/// Processor time of all threads of a process so far, in nanoseconds. Threads that ended are not in it; no server here ends
/// any while it serves.
pub(crate) fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut sum_ns = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        sum_ns += schedstat_ns(&task?.path())?;
    }
    Ok(sum_ns)
}

/// Processor time of this thread so far.
pub(crate) fn own_thread_ns() -> io::Result<u64> {
    schedstat_ns(Path::new("/proc/thread-self"))
}

/// Processor time of a thread of this process, by its number in the kernel.
pub(crate) fn thread_ns(thread: i32) -> io::Result<u64> {
    schedstat_ns(Path::new(&format!("/proc/self/task/{thread}")))
}

/// Processor time of every kernel thread so far: write-back, the file system's journal, the block layer. What they do for
/// others on a machine that is not quiet is in it too.
pub(crate) fn kernel_ns() -> io::Result<BTreeMap<u32, u64>> {
    let mut threads = BTreeMap::new();
    for process in fs::read_dir("/proc")? {
        let process = process?;
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // One may end while it is looked at.
        let Ok(stat) = fs::read_to_string(process.path().join("stat")) else {
            continue;
        };
        // The name in brackets may hold spaces; state and parent follow it.
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1));
        if parent == Some(KERNEL_PARENT)
            && let Ok(ns) = schedstat_ns(&process.path())
        {
            threads.insert(pid, ns);
        }
    }
    Ok(threads)
}

/// What kernel threads took between two looks; one that began in between counts from nothing.
pub(crate) fn kernel_between_ns(before: &BTreeMap<u32, u64>, after: &BTreeMap<u32, u64>) -> u64 {
    after
        .iter()
        .map(|(pid, ns)| ns.saturating_sub(before.get(pid).copied().unwrap_or(0)))
        .sum()
}

/// Memory of a process that no file stands behind, in bytes: heap and stacks, not maps of files, not sockets.
pub(crate) fn anonymous_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("no Anonymous in smaps_rollup"))
}

fn schedstat_ns(process: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(process.join("schedstat"))?;
    let first = text.split(' ').next().and_then(|ns| ns.parse().ok());
    first.ok_or_else(|| io::Error::other("schedstat does not begin with a number"))
}

/// The cores this process may run on.
pub(crate) fn cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|core| set.is_set(*core))
        .collect())
}

/// Keeps this thread, and what it starts from now on, to these cores.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Raises the number of files that this process and what it starts may have open as far as it goes.
pub(crate) fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_in_the_processor_time_and_memory_of_the_process() {
        let pid = std::process::id();
        let (cpu, own, memory) = (
            cpu_ns(pid).unwrap(),
            own_thread_ns().unwrap(),
            anonymous_bytes(pid).unwrap(),
        );
        let held = vec![1_u8; 64 << 20];
        // Far more than the scheduler's tick.
        while own_thread_ns().unwrap() < own + 20_000_000 {
            std::hint::black_box(held.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        }
        assert!(cpu_ns(pid).unwrap() >= cpu + 20_000_000);
        assert!(anonymous_bytes(pid).unwrap() >= memory + (32 << 20));
    }

    #[test]
    fn kernel_threads_that_come_and_go_do_not_count_backwards() {
        let before = BTreeMap::from([(10, 500), (11, 100)]);
        let after = BTreeMap::from([(10, 700), (12, 40)]);
        assert_eq!(kernel_between_ns(&before, &after), 240);
        let now = kernel_ns().unwrap();
        assert!(now.keys().all(|pid| *pid > 2));
    }
}
