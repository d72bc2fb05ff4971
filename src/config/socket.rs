//! Where the Unix socket of a data directory is.

use dstore_shared::BlobHash;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest path that the kernel takes for a socket (`sun_path`, without its zero).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The socket of the node that lives in `data`: `dstore.sock` in it, or if that path is too long a name in
/// `$XDG_RUNTIME_DIR/dstore` made of the directory's hash. Whoever starts it and whoever attaches agree,
/// from any working directory.
pub fn of_data_dir(data: &Path, runtime_dir: Option<&OsStr>) -> Result<PathBuf, String> {
    let data = resolved(data);
    let path = data.join("dstore.sock");
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(path);
    }
    let Some(runtime_dir) = runtime_dir.filter(|dir| !dir.is_empty()) else {
        return Err(format!(
            "the path of `{}` is too long for a socket: set XDG_RUNTIME_DIR, or use a shorter path",
            data.display()
        ));
    };
    let hash = BlobHash::of(data.as_os_str().as_bytes()).to_string();
    within_limit(Path::new(runtime_dir).join("dstore").join(&hash[..16]))
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

    #[test]
    fn a_short_path_is_in_the_data_dir_and_a_long_one_moves_to_the_runtime_dir() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let short = dir.path().join("d");
        assert!(of_data_dir(&short, None).expect("short").ends_with("d/dstore.sock"));
        let long = dir.path().join("x".repeat(120));
        let moved = of_data_dir(&long, Some(OsStr::new("/run/user/1"))).expect("moved");
        assert!(
            moved.starts_with("/run/user/1/dstore") && moved.as_os_str().len() == 35,
            "{}",
            moved.display()
        );
        assert!(of_data_dir(&long, None).expect_err("nowhere").contains("set XDG_RUNTIME_DIR"));
        assert!(of_data_dir(&long, Some(OsStr::new(&"/r".repeat(60)))).is_err());
    }

    #[test]
    fn the_same_directory_has_the_same_socket_before_it_exists_and_by_any_path() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).expect("linked");
        let before = of_data_dir(&dir.path().join("link/data"), None).expect("short");
        std::fs::create_dir(dir.path().join("data")).expect("made");
        assert_eq!(before, of_data_dir(&dir.path().join("data"), None).expect("short"));
    }
}
