//! Files that an operator names, such as configurations, keys and certificates. They are read whole,
//! within a bound, and only if they are regular files, so that nothing waits for a pipe or a device.
//!
//! It does not know their content.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Larger files are refused.
pub(crate) const FILE_BYTES_MAX: u64 = 4 << 20;

/// The content of a file.
#[derive(Debug)]
pub(crate) struct Input {
    /// The bytes of the file.
    pub bytes: Vec<u8>,
    /// Set if users other than the owner can read or change the file.
    pub exposure: Option<Exposure>,
}

impl Input {
    /// Reads a file. Symbolic links are followed, since Kubernetes mounts secrets by them.
    ///
    /// # Errors
    /// Those of the system; or the file is not a regular one, or too large.
    pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Self> {
        // Checked before, since opening a device may have an effect, and after, since the path may
        // lead to another file by then.
        check_regular(&fs::metadata(path)?)?;
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
        let metadata = file.metadata()?;
        check_regular(&metadata)?;
        let bytes = read_to_end(file, bytes_max)?;
        Ok(Self { bytes, exposure: Exposure::of(path, &metadata) })
    }

    /// Reads a file of text.
    ///
    /// # Errors
    /// Those of [`Input::read`], or the file is not UTF-8.
    pub(crate) fn read_text(path: &Path, bytes_max: u64) -> io::Result<(String, Option<Exposure>)> {
        let Self { bytes, exposure } = Self::read(path, bytes_max)?;
        Ok((text(bytes)?, exposure))
    }
}

/// Reads text from a file or a pipe, for commands that may wait for it.
///
/// # Errors
/// Those of the system; or the text is too large or not UTF-8.
pub(crate) fn read_text_waiting(path: &Path, bytes_max: u64) -> io::Result<String> {
    text(read_to_end(File::open(path)?, bytes_max)?)
}

/// The name of a file as it is shown; not if it is a PEM text that was given in the place of a name.
pub(crate) fn shown(path: &Path) -> Cow<'_, str> {
    let name = path.to_string_lossy();
    if name.contains(['\n', '\r']) || name.contains("-----BEGIN") {
        return Cow::Borrowed("(a text in place of the name of a file)");
    }
    name
}

/// A file that users other than its owner can read or change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exposure {
    /// The file.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
}

impl Exposure {
    fn of(path: &Path, metadata: &Metadata) -> Option<Self> {
        let mode = metadata.mode() & 0o7777;
        (mode & OTHERS != 0).then(|| Self { path: path.into(), mode })
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}: holds a secret, and others than its owner can read or change it (mode {:04o}); \
             chmod 600 ends that",
            self.path.display(),
            self.mode
        )
    }
}

/// Permissions of the group and of all other users to read and write.
const OTHERS: u32 = 0o066;

fn check_regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = kind(metadata.file_type());
    Err(io::Error::other(format!("{what}, and not a regular file")))
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe (FIFO)",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "something special",
    }
}

fn read_to_end(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("too large: more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    /// A directory that is removed after the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("com-broker-input-{}-{name}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            fs::create_dir_all(&directory).unwrap();
            Self(directory)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn files_that_are_not_regular_are_refused_without_waiting() {
        let scratch = Scratch::new("kinds");
        let pipe = scratch.0.join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let socket = scratch.0.join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let link = scratch.0.join("link");
        symlink(&pipe, &link).unwrap();
        for (path, what) in [
            (pipe.as_path(), "a pipe (FIFO), and not"),
            (&link, "a pipe (FIFO), and not"),
            (&socket, "a socket, and not"),
            (&scratch.0, "a directory, and not"),
            (Path::new("/dev/zero"), "a device, and not"),
            (&scratch.0.join("absent"), "No such file"),
        ] {
            let fault = Input::read(path, 10).unwrap_err().to_string();
            assert!(fault.starts_with(what), "{}: {fault}", path.display());
        }
    }

    #[test]
    fn a_link_to_a_regular_file_is_followed_and_its_size_is_bounded() {
        let scratch = Scratch::new("links");
        let (file, link) = (scratch.0.join("file"), scratch.0.join("link"));
        fs::write(&file, "0123456789").unwrap();
        symlink("file", &link).unwrap();
        assert_eq!(Input::read(&link, 10).unwrap().bytes, b"0123456789");
        let fault = Input::read(&link, 9).unwrap_err().to_string();
        assert_eq!(fault, "too large: more than 9 bytes");
        fs::write(&file, b"\xff").unwrap();
        assert!(Input::read_text(&file, 9).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn permissions_of_other_users_are_noticed() {
        let scratch = Scratch::new("modes");
        let file = scratch.0.join("key");
        fs::write(&file, "key").unwrap();
        for (mode, is_exposed) in
            [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o622, true)]
        {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let exposure = Input::read(&file, 10).unwrap().exposure;
            assert_eq!(exposure.is_some(), is_exposed, "{mode:o}");
            assert!(exposure.is_none_or(|one| one.to_string().contains(&format!("{mode:04o}"))));
        }
    }

    #[test]
    fn a_pem_text_in_place_of_a_name_is_not_shown() {
        assert_eq!(shown(Path::new("certs/a b.pem")), "certs/a b.pem");
        for text in ["-----BEGIN PRIVATE KEY-----\nMIG", "-----BEGIN PRIVATE KEY-----", "MIG\nQ=="]
        {
            assert_eq!(shown(Path::new(text)), "(a text in place of the name of a file)");
        }
    }
}
