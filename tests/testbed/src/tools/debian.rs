//! Programs that no language's registry carries, from Debian's packages.
//!
//! They are unpacked into the cache with the libraries that this machine lacks. So root is not needed, and a run by root
//! does not change the machine. `apt` gets a package list of its own, because a fresh machine has none.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::source::Source;
use super::{State, on_path};
use crate::process;

/// `apt-get` with lists and a cache of its own, in the present folder, and with the file `sources` there if [`OF_RELEASE`] has made it.
const APT: &str = r#"
set -e
apt() {
    apt-get --quiet --yes --option Dir::State::Lists="$PWD/lists" --option Dir::Cache="$PWD/cache" \
        --option APT::Sandbox::User= --option Debug::NoLocking=true \
        ${release:+--option "Dir::Etc::SourceList=$PWD/sources" --option Dir::Etc::SourceParts=-} "$@"
}
release=
mkdir -p lists/partial cache/archives/partial
"#;

/// Unpacks the further arguments, and what they depend on and this machine lacks, into `$1`.
const FETCH: &str = r#"
to=$1
shift
apt update
apt --no-install-recommends --download-only install "$@"
for package in cache/archives/*.deb; do
    # There is none where all of them are installed.
    [ ! -e "$package" ] || dpkg --extract "$package" "$to"
done
"#;

/// Makes `apt` that of Debian's release `$1`, on the mirror that this machine uses.
const OF_RELEASE: &str = r#"
mirror=$(apt --print-uris update | sed -n "s|^'\([^']*/debian\)/dists/[^/]*/InRelease'.*|\1|p" | head -n 1)
[ "$mirror" ] || { echo "no mirror of Debian's is among the sources of apt" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >sources
release=$1
shift
"#;

/// Makes `$1` a root file system with the further arguments and all that they depend on. No script of a package runs.
const FETCH_ROOT: &str = r#"
to=$1
shift
apt update
touch none
apt --option Dir::State::Status="$PWD/none" --no-install-recommends --download-only install "$@"
for folder in bin sbin lib lib64; do
    mkdir -p "$to/usr/$folder"
    ln -s "usr/$folder" "$to/$folder"
done
for package in cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar --extract --keep-directory-symlink --directory "$to"
done
"#;

/// Unpacks the further arguments into `$1`.
const FETCH_ALONE: &str = r#"
to=$1
shift
apt update
apt download "$@"
for package in *.deb; do dpkg --extract "$package" "$to"; done
"#;

/// Unpacks a package of Debian's, and those that it depends on and that are not installed, into `to`.
pub(super) fn unpack(package: &str, to: &Path) -> Result<()> {
    unpack_all(&[package], to)
}

/// The same for several packages.
pub(super) fn unpack_all(packages: &[&str], to: &Path) -> Result<()> {
    run(&[], FETCH, packages, to)
}

/// Unpacks packages of another of Debian's releases, such as `testing`, without what they depend on.
pub(super) fn unpack_from(release: &str, packages: &[&str], to: &Path) -> Result<()> {
    run(&[release], FETCH_ALONE, packages, to)
}

/// Makes `to` a root file system with these packages, for an image.
pub(super) fn unpack_root(packages: &[&str], to: &Path) -> Result<()> {
    run(&[], FETCH_ROOT, packages, to)
}

/// The same with packages of another of Debian's releases.
fn unpack_root_of(release: &str, packages: &[&str], to: &Path) -> Result<()> {
    run(&[release], FETCH_ROOT, packages, to)
}

/// `release` is the machine's own if none is given.
fn run(release: &[&str], fetch: &str, packages: &[&str], to: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut command = Command::new("sh");
    let of_release = if release.is_empty() { "" } else { OF_RELEASE };
    command.args(["-c", &[APT, of_release, fetch].concat(), "sh"]);
    command.args(release).arg(to).args(packages).current_dir(scratch.path());
    process::run("apt-get", command, Duration::from_secs(900)).map(drop)
}

/// A major version of Prometheus that the rules are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrometheusVersion {
    /// That of Debian's stable release.
    Two,
    /// That of Debian's testing. A range no longer holds the sample at its beginning.
    Three,
}

impl PrometheusVersion {
    /// All that the rules are for.
    pub const ALL: [Self; 2] = [Self::Two, Self::Three];

    /// The number.
    pub fn major(self) -> u32 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

/// The folder with `prometheus` and `promtool` of this version: on the PATH, or else Debian's.
pub fn prometheus(version: PrometheusVersion) -> Result<PathBuf> {
    if let Some(folder) = prometheus_on_path(version) {
        return Ok(folder);
    }
    let place = prometheus_source(version).fetched(|to| match version {
        PrometheusVersion::Two => unpack("prometheus", to),
        PrometheusVersion::Three => unpack_from("testing", &["prometheus", "promtool"], to),
    });
    let missing =
        || format!("`prometheus` and `promtool` {} are not on the PATH: install Prometheus.", version.major());
    Ok(place.with_context(missing)?.join("usr/bin"))
}

pub(super) fn prometheus_state(version: PrometheusVersion) -> State {
    prometheus_on_path(version)
        .map_or_else(|| prometheus_source(version).state(), |folder| State::Ready(folder.display().to_string()))
}

fn prometheus_on_path(version: PrometheusVersion) -> Option<PathBuf> {
    let program = on_path(&["prometheus"])?;
    let described = Command::new(&program).arg("--version").output().ok()?;
    let number = format!("version {}.", version.major());
    let folder = program.parent()?.to_owned();
    (String::from_utf8_lossy(&described.stdout).contains(&number) && folder.join("promtool").is_file())
        .then_some(folder)
}

/// A program on the PATH, or else from a package of Debian's.
struct Packaged {
    /// The program, as it is called on the PATH.
    name: &'static str,
    package: &'static str,
    /// Its folder in the package.
    folder: &'static str,
    /// Where the package comes from, for the reader.
    from: &'static str,
    /// The size of the package and what it needs.
    megabytes: u32,
}

const NGINX: Packaged =
    Packaged { name: "nginx", package: "nginx", folder: "usr/sbin", from: "Debian, nginx", megabytes: 1 };
const HAPROXY: Packaged =
    Packaged { name: "haproxy", package: "haproxy", folder: "usr/sbin", from: "Debian, haproxy", megabytes: 3 };
const REDIS: Packaged = Packaged {
    name: "redis-server",
    package: "redis-server",
    folder: "usr/bin",
    from: "Debian, redis-server",
    megabytes: 2,
};
const ETCD: Packaged =
    Packaged { name: "etcd", package: "etcd-server", folder: "usr/bin", from: "Debian, etcd-server", megabytes: 10 };

impl Packaged {
    fn program(&self) -> Result<PathBuf> {
        if let Some(program) = on_path(&[self.name]) {
            return Ok(program);
        }
        let place = self.source().fetched(|to| unpack(self.package, to));
        let missing = || format!("`{0}` is not on the PATH: install {0}.", self.name);
        Ok(place.with_context(missing)?.join(self.folder).join(self.name))
    }

    fn state(&self) -> State {
        on_path(&[self.name])
            .map_or_else(|| self.source().state(), |program| State::Ready(program.display().to_string()))
    }

    fn source(&self) -> Source {
        Source {
            name: self.name.into(),
            folder: format!("{}-debian", self.name),
            from: self.from,
            megabytes: self.megabytes,
        }
    }
}

/// The program `nginx`.
pub fn nginx() -> Result<PathBuf> {
    NGINX.program()
}

/// The program `haproxy`.
pub fn haproxy() -> Result<PathBuf> {
    HAPROXY.program()
}

/// The program `redis-server`.
pub fn redis() -> Result<PathBuf> {
    REDIS.program()
}

/// A server with Redis' protocol that gateways may share limits through, beside the `redis-server` of [`redis()`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisVersion {
    /// Redis 6.0.
    Six,
    /// Redis 8.0.
    Eight,
    /// Valkey 8.1.
    Valkey,
}

impl RedisVersion {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Six, Self::Eight, Self::Valkey];

    /// For the reader, the release of Debian's that has it, and its program.
    fn origin(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Six => ("Redis 6.0", "bullseye", "redis-server"),
            Self::Eight => ("Redis 8.0", "trixie", "redis-server"),
            Self::Valkey => ("Valkey 8.1", "trixie", "valkey-server"),
        }
    }

    fn source(self) -> Source {
        let (name, release, program) = self.origin();
        let folder = format!("{program}-{release}");
        Source { name: name.into(), folder, from: "Debian, with what it depends on", megabytes: 20 }
    }

    pub(super) fn state(self) -> (String, State) {
        (self.origin().0.to_owned(), self.source().state())
    }

    /// The program. It runs with the libraries of its own release.
    pub fn program(self) -> Result<PathBuf> {
        let (name, release, program) = self.origin();
        let place = self.source().fetched(|to| {
            unpack_root_of(release, &[program], to)?;
            let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
            let script = format!(
                "#!/bin/sh\nroot=$(dirname \"$0\")\nexec \"$root/{libraries}\"/ld-linux-*.so.2 --library-path \"$root/{libraries}\" \"$root/usr/bin/{program}\" \"$@\"\n"
            );
            let path = to.join(program);
            std::fs::write(&path, script)?;
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            Ok(())
        });
        Ok(place.with_context(|| format!("{name} cannot be had from Debian."))?.join(program))
    }
}

/// The program `etcd`.
pub fn etcd() -> Result<PathBuf> {
    ETCD.program()
}

pub(super) fn states() -> [(String, State); 3] {
    [("nginx", NGINX), ("Redis", REDIS), ("etcd", ETCD)].map(|(name, program)| (name.to_owned(), program.state()))
}

fn prometheus_source(version: PrometheusVersion) -> Source {
    let (folder, from, megabytes) = match version {
        PrometheusVersion::Two => ("prometheus-debian", "Debian, prometheus", 60),
        PrometheusVersion::Three => ("prometheus-3-debian", "Debian testing, prometheus and promtool", 46),
    };
    Source { name: format!("Prometheus {}", version.major()), folder: folder.into(), from, megabytes }
}
