//! Where the Unix socket of a data directory is.

use dstore_shared::BlobHash;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longest path that the kernel takes for a socket (`sun_path`, without its zero).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What it is called in the data directory.
const IN_DATA_DIR: &str = "dstore.sock";

/// Where a socket may be whose data directory has too long a path.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Elsewhere {
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `$TMPDIR`.
    pub temp_dir: Option<PathBuf>,
    /// The user's number.
    pub uid: u32,
}

impl Elsewhere {
    /// Folders for this user alone, the best first.
    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let given = |dir: &Option<PathBuf>| dir.clone().filter(|dir| dir.is_absolute());
        let own = format!("dstore-{}", self.uid);
        let temp = given(&self.temp_dir).into_iter().chain([PathBuf::from("/tmp")]);
        given(&self.runtime_dir)
            .map(|dir| dir.join("dstore"))
            .into_iter()
            .chain(temp.map(move |dir| dir.join(&own)))
    }
}

/// The socket of the node that lives in `data`: `dstore.sock` in it, or if that path is too long a name made of
/// the directory's hash in a folder of this user's. Whoever starts it and whoever attaches agree, from any
/// working directory. Such a folder is to be judged by [`check_folder`].
pub fn of_data_dir(data: &Path, elsewhere: &Elsewhere) -> Result<PathBuf, String> {
    let data = resolved(data);
    let hash = BlobHash::of(data.as_os_str().as_bytes()).to_string();
    let moved = elsewhere.folders().map(|folder| folder.join(&hash[..16]));
    let mut all = std::iter::once(data.join(IN_DATA_DIR)).chain(moved);
    all.find(|path| path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX).ok_or_else(|| {
        format!("the path of `{}` is too long for a socket: use a shorter one", data.display())
    })
}

/// Whether the folder of `socket` can be relied on: it is the data directory, it is not there yet, or nobody but
/// this user can have put something into it. Anybody may make folders in `/tmp`.
pub fn check_folder(socket: &Path) -> Result<(), String> {
    let Some(folder) = socket.parent().filter(|_| !socket.ends_with(IN_DATA_DIR)) else { return Ok(()) };
    let Ok(found) = folder.symlink_metadata() else { return Ok(()) };
    let own =
        found.is_dir() && found.uid() == rustix::process::getuid().as_raw() && found.mode() & 0o777 == 0o700;
    own.then_some(()).ok_or_else(|| format!("the folder `{}` is not this user's alone", folder.display()))
}

/// `path`, if a socket can have it.
pub fn within_limit(path: PathBuf) -> Result<PathBuf, String> {
    let len = path.as_os_str().len();
    if len > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "the path has `{len}` bytes, a socket's has at most `{SOCKET_PATH_BYTES_MAX}`: use a shorter one"
        ));
    }
    Ok(path)
}

/// `path` made absolute, without links as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let real = path.ancestors().find_map(|there| Some((there, there.canonicalize().ok()?)));
    match real {
        Some((there, real)) => match path.strip_prefix(there) {
            Ok(rest) if rest.as_os_str().is_empty() => real,
            Ok(rest) => real.join(rest),
            Err(_) => path,
        },
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn elsewhere(runtime_dir: Option<&str>, temp_dir: Option<&str>) -> Elsewhere {
        Elsewhere { runtime_dir: runtime_dir.map(Into::into), temp_dir: temp_dir.map(Into::into), uid: 7 }
    }

    #[test]
    fn a_short_path_is_in_the_data_dir_and_a_long_one_moves_to_a_folder_of_the_users() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let short = dir.path().join("d");
        let nowhere = elsewhere(None, None);
        assert!(of_data_dir(&short, &nowhere).expect("short").ends_with("d/dstore.sock"));
        let long = dir.path().join("x".repeat(120));
        let too_long = "/r".repeat(60);
        let table = [
            (Some("/run/user/1"), None, "/run/user/1/dstore"),
            (None, Some("/mine"), "/mine/dstore-7"),
            (Some(&*too_long), Some("/mine"), "/mine/dstore-7"),
            (Some(""), Some("relative"), "/tmp/dstore-7"),
            (None, Some(&*too_long), "/tmp/dstore-7"),
            (None, None, "/tmp/dstore-7"),
        ];
        for (runtime_dir, temp_dir, folder) in table {
            let moved = of_data_dir(&long, &elsewhere(runtime_dir, temp_dir)).expect("moved");
            assert_eq!(moved.parent(), Some(Path::new(folder)), "{}", moved.display());
            assert_eq!(moved.as_os_str().len(), folder.len() + 17);
        }
    }

    #[test]
    fn a_folder_that_others_may_have_filled_is_not_relied_on() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = |folder: &str| dir.path().join(folder).join("0123456789abcdef");
        assert_eq!(check_folder(&socket("absent")), Ok(()));
        for (folder, mode, good) in [("own", 0o700, true), ("group", 0o770, false), ("all", 0o701, false)] {
            std::fs::create_dir(dir.path().join(folder)).expect("made");
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(dir.path().join(folder), mode).expect("set");
            assert_eq!(check_folder(&socket(folder)).is_ok(), good, "{folder}");
        }
        std::os::unix::fs::symlink(dir.path().join("own"), dir.path().join("link")).expect("linked");
        assert!(
            check_folder(&socket("link")).expect_err("a link").contains("link` is not this user's alone")
        );
        assert_eq!(check_folder(&dir.path().join("all/dstore.sock")), Ok(()), "a data directory is as it is");
    }

    #[test]
    fn the_same_directory_has_the_same_socket_before_it_exists_and_by_any_path() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).expect("linked");
        let before = of_data_dir(&dir.path().join("link/data"), &Elsewhere::default()).expect("short");
        std::fs::create_dir(dir.path().join("data")).expect("made");
        assert_eq!(before, of_data_dir(&dir.path().join("data"), &Elsewhere::default()).expect("short"));
    }
}
