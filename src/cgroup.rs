//! Where the limits of a process's control groups stand, versions 1 and 2.
//!
//! A base layer, pure: the text of `/proc/self/cgroup` comes in, names of files go out.

/// A limit of a controller: the files that hold it in a group's folder, under version 2 and under version 1.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The controller's name.
    pub controller: &'static str,
    /// The file of version 2.
    pub v2: &'static str,
    /// The file of version 1.
    pub v1: &'static str,
}

/// Bytes of memory a group may use.
pub const MEMORY: Limit = Limit { controller: "memory", v2: "memory.max", v1: "memory.limit_in_bytes" };

/// The files that may hold a limit on the process whose `/proc/self/cgroup` reads `cgroup`: its own groups' and those
/// of all groups above them, for every one of them counts. Not all of them exist.
pub fn limit_files(cgroup: &str, limit: Limit) -> impl Iterator<Item = String> {
    cgroup.lines().flat_map(move |line| {
        let mut fields = line.splitn(3, ':');
        let (controllers, path) = (fields.nth(1).unwrap_or(""), fields.next().unwrap_or("/").to_owned());
        let found = match controllers {
            "" => Some(("/sys/fs/cgroup".to_owned(), limit.v2)),
            _ if controllers.split(',').any(|name| name == limit.controller) => {
                Some((format!("/sys/fs/cgroup/{}", limit.controller), limit.v1))
            }
            _ => None,
        };
        found.into_iter().flat_map(move |(root, file)| {
            let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).collect();
            let mut files: Vec<String> =
                ends.into_iter().map(|end| format!("{root}{}/{file}", path[..end].trim_end_matches('/'))).collect();
            files.dedup();
            files
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_versions_are_found() {
        let files: Vec<String> = limit_files("0::/a/b\n", MEMORY).collect();
        assert_eq!(
            files,
            ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/a/b/memory.max"]
        );
        let files: Vec<String> = limit_files("5:cpu,memory:/x\n4:pids:/y\n", MEMORY).collect();
        assert_eq!(
            files,
            ["/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/x/memory.limit_in_bytes"]
        );
    }

    #[test]
    fn a_group_at_the_root_is_named_once() {
        assert_eq!(limit_files("0::/\n", MEMORY).collect::<Vec<_>>(), ["/sys/fs/cgroup/memory.max"]);
    }
}
