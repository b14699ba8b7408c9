//! On which file systems an SQLite ledger may be: those of this machine. Over a network locks are not sure, and the write-ahead log
//! needs memory that all its users share (sqlite.org/wal.html), so that two machines would each see a ledger of their own.

use std::path::Path;

/// Kinds of network file systems, by the number that Linux gives them (statfs(2), linux/magic.h).
const NETWORK: [(u64, &str); 13] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x0102_1997, "9p"),
    (0x786f_4256, "vboxsf"),
];

/// Every file system of a program's (FUSE) has this number, on this machine or not.
const FUSE: u64 = 0x6573_5546;
/// Those of them that others share, by the kind that their mount tells (proc_pid_mountinfo(5)).
const SHARED: [&str; 12] = [
    "virtiofs",
    "fuse.sshfs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.gcsfuse",
    "fuse.mount-s3",
    "fuse.juicefs",
    "fuse.glusterfs",
    "fuse.ceph",
    "fuse.ceph-fuse",
    "fuse.davfs",
    "fuse.smbnetfs",
];

/// Which network file system a path is on; none if it is on this machine, or the system does not tell.
pub(super) fn network_kind(path: &Path) -> Option<&'static str> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let of = if path.exists() { path } else { folder };
    match magic(of)? {
        FUSE => shared_kind(of),
        magic => kind_of(magic),
    }
}

/// Which of a program's file systems that others share a path is on, by its device.
#[cfg(target_os = "linux")]
fn shared_kind(path: &Path) -> Option<&'static str> {
    let device = rustix::fs::stat(path).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    shared_of(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, major, minor)
}

#[cfg(not(target_os = "linux"))]
fn shared_kind(_: &Path) -> Option<&'static str> {
    None
}

/// A mount's line has its device as the third word, and its kind as the first after a hyphen.
fn shared_of(mounts: &str, major: u32, minor: u32) -> Option<&'static str> {
    let device = format!("{major}:{minor}");
    let of_device = |line: &&str| line.split(' ').nth(2) == Some(&device);
    let kind = mounts.lines().find(of_device)?.split_once(" - ")?.1.split(' ').next()?;
    SHARED.into_iter().find(|shared| *shared == kind)
}

#[cfg(target_os = "linux")]
fn magic(path: &Path) -> Option<u64> {
    let found = rustix::fs::statfs(path).ok()?;
    // Its type differs from one architecture to another, and its upper half may be of its sign.
    #[expect(clippy::cast_sign_loss, reason = "a number of 32 bits, whatever its sign")]
    let magic = found.f_type as u64;
    Some(magic & 0xffff_ffff)
}

#[cfg(not(target_os = "linux"))]
fn magic(_: &Path) -> Option<u64> {
    None
}

fn kind_of(magic: u64) -> Option<&'static str> {
    NETWORK.iter().find(|(number, _)| *number == magic).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_this_machine_is_none_of_a_networks_file_system() {
        let directory = tempfile::tempdir().unwrap();
        assert!(magic(directory.path()).is_some_and(|magic| magic > 0));
        assert_eq!(network_kind(&directory.path().join("not there yet.db")), None);
        assert_eq!(network_kind(Path::new("ledger.db")), None);
    }

    #[test]
    fn a_programs_file_system_is_known_by_its_mount() {
        let mounts = "36 35 8:1 / / rw,noatime shared:1 - ext4 /dev/sda1 rw\n\
                      52 36 0:49 / /mnt/far rw,nosuid shared:9 - fuse.sshfs u@far:/ rw,user_id=0\n\
                      53 36 0:50 / /mnt/near rw - fuseblk /dev/sdb1 rw\n\
                      54 36 0:51 / /host rw - virtiofs host rw\n";
        assert_eq!(shared_of(mounts, 0, 49), Some("fuse.sshfs"));
        assert_eq!(shared_of(mounts, 0, 51), Some("virtiofs"));
        for (major, minor) in [(8, 1), (0, 50), (0, 5)] {
            assert_eq!(shared_of(mounts, major, minor), None, "{major}:{minor}");
        }
    }

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        for (magic, kind) in
            [(0x6969, Some("NFS")), (0xff53_4d42, Some("CIFS")), (0xef53, None), (0x794c_7630, None)]
        {
            assert_eq!(kind_of(magic), kind, "{magic:x}");
        }
    }
}
