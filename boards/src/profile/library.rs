//! All profiles: shipped ones and the user's own.

use super::detect::{Detection, Origin};
use super::evidence::Evidence;
use super::schema::Profile;
use crate::error::MachineError;
use std::path::{Path, PathBuf};

/// Texts of the shipped profiles, by file name.
macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../profiles/", $name, ".toml")))),*]
    };
}

const SHIPPED: &[(&str, &str)] = shipped![
    "raspberry-pi-zero-2-w",
    "raspberry-pi-3b-plus",
    "raspberry-pi-4b",
    "raspberry-pi-5",
    "rk3588",
    "orion-o6",
    "jetson-orin-nano",
    "beagleplay",
    "visionfive-2",
    "intel-n100",
    "laptop-intel",
    "laptop-amd",
    "android-phone",
    "generic",
];

/// A collection of profiles.
#[derive(Clone, Debug)]
pub struct Library {
    /// The user's own come first: they win over equally specific ones.
    profiles: Vec<(Origin, Profile)>,
}

impl Library {
    /// Only the shipped profiles.
    pub fn shipped() -> Self {
        let parse = |&(name, text): &(&str, &str)| {
            let path = PathBuf::from(format!("{name}.toml"));
            (Origin::Shipped, Profile::parse(text, &path).expect("a test loads every shipped profile"))
        };
        Self { profiles: SHIPPED.iter().map(parse).collect() }
    }

    /// The shipped profiles and those of a folder, which need not exist.
    ///
    /// Fails if a `.toml` file there is not a valid profile, or if two share a name.
    pub fn with_folder(folder: &Path) -> Result<Self, MachineError> {
        let failed = |source| MachineError::Read { path: folder.to_path_buf(), source };
        let mut paths: Vec<PathBuf> = match std::fs::read_dir(folder) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
                .collect::<Result<_, _>>()?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort();
        let mut profiles: Vec<(Origin, Profile)> = Vec::new();
        for path in paths {
            let profile = read_file(&path)?;
            if let Some((Origin::File(other), _)) = profiles.iter().find(|(_, own)| own.name == profile.name)
            {
                return Err(MachineError::Profile {
                    line: 1,
                    field: "name".into(),
                    reason: format!("\"{}\" is the name of {} too", profile.name, other.display()),
                    path,
                });
            }
            profiles.push((Origin::File(path), profile));
        }
        profiles.extend(Self::shipped().profiles);
        Ok(Self { profiles })
    }

    /// The folder of the user's own profiles: `pith/boards` in `$XDG_CONFIG_HOME`, else in
    /// `~/.config`. `None` if the environment names neither.
    pub fn user_folder() -> Option<PathBuf> {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = folder("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let config = config.or_else(|| folder("HOME").map(|home| home.join(".config")))?;
        Some(config.join("pith/boards"))
    }

    /// The library without the user's own profile of that name.
    pub fn without(mut self, name: &str) -> Self {
        self.profiles.retain(|(origin, profile)| *origin == Origin::Shipped || profile.name != name);
        self
    }

    /// The profiles, the user's own first.
    pub fn profiles(&self) -> impl Iterator<Item = (&Origin, &Profile)> {
        self.profiles.iter().map(|(origin, profile)| (origin, profile))
    }

    /// The profile with the most specific satisfied rule.
    pub fn detect(&self, evidence: &Evidence) -> Detection {
        let fits = self.profiles.iter().filter_map(|(origin, profile)| {
            profile.fits(evidence).map(|(specificity, reasons)| (specificity, reasons, origin, profile))
        });
        let mut fits: Vec<_> = fits.collect();
        // Stable: the user's own stay before shipped ones.
        fits.sort_by_key(|&(specificity, ..)| std::cmp::Reverse(specificity));
        let others =
            fits.iter().skip(1).map(|(points, _, _, profile)| (profile.name.clone(), *points)).collect();
        let (specificity, reasons, origin, profile) =
            fits.into_iter().next().expect("the generic profile fits every machine");
        Detection {
            profile: profile.clone(),
            origin: origin.clone(),
            specificity: Some(specificity),
            reasons,
            others,
        }
    }

    /// The profile with that name, or in that file.
    pub fn forced(&self, name_or_file: &str) -> Result<Detection, MachineError> {
        let forced = |origin: Origin, profile: Profile| Detection {
            profile,
            origin,
            specificity: None,
            reasons: vec![format!("asked for as \"{name_or_file}\"")],
            others: Vec::new(),
        };
        if let Some((origin, profile)) =
            self.profiles.iter().find(|(_, profile)| profile.name == name_or_file)
        {
            return Ok(forced(origin.clone(), profile.clone()));
        }
        let path = Path::new(name_or_file);
        if path.is_file() || name_or_file.ends_with(".toml") || name_or_file.contains('/') {
            let profile = read_file(path)?;
            return Ok(forced(Origin::File(path.to_path_buf()), profile));
        }
        let names: Vec<&str> = self.profiles.iter().map(|(_, profile)| profile.name.as_str()).collect();
        Err(MachineError::NoProfile { name: name_or_file.into(), known: names.join(", ") })
    }
}

fn read_file(path: &Path) -> Result<Profile, MachineError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| MachineError::Read { path: path.to_path_buf(), source })?;
    Profile::parse(&text, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::evidence::Found;

    fn evidence(model: &str) -> Evidence {
        let found = Found { value: model.to_string(), path: "proc/device-tree/model".into() };
        Evidence { model: Some(found), ..Evidence::default() }
    }

    #[test]
    fn every_shipped_profile_loads_and_has_its_files_name() {
        for (name, text) in SHIPPED {
            let profile = Profile::parse(text, Path::new(name)).unwrap();
            assert_eq!(profile.name, *name);
            let again = toml::to_string(&profile).unwrap();
            assert_eq!(Profile::parse(&again, Path::new("again")).unwrap(), profile);
        }
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles")).unwrap().count();
        assert_eq!(files, SHIPPED.len(), "a file in profiles/ that is not in the table");
    }

    #[test]
    fn a_machine_that_nobody_knows_is_generic() {
        let detection = Library::shipped().detect(&Evidence::default());
        assert_eq!((detection.profile.name.as_str(), detection.specificity), ("generic", Some(0)));
        assert!(detection.others.is_empty());
    }

    #[test]
    fn a_users_own_profile_wins_among_equals_and_yields_to_more_specific_ones() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, rule: &str| {
            let text = format!("name = \"{name}\"\ntitle = \"Mine\"\n[[detect]]\n{rule}\nsource = \"me\"\n");
            std::fs::write(folder.path().join(format!("{name}.toml")), text).unwrap();
        };
        write("mine", "model = \"Raspberry Pi 5\"");
        write("all", "always = true");
        std::fs::write(folder.path().join("notes.txt"), "not a profile").unwrap();
        let library = Library::with_folder(folder.path()).unwrap();
        let detection = library.detect(&evidence("Raspberry Pi 5 Model B Rev 1.0"));
        assert_eq!(detection.profile.name, "mine");
        assert!(matches!(detection.origin, Origin::File(_)));
        assert_eq!(detection.others[0], ("raspberry-pi-5".to_string(), 100));
        assert_eq!(library.detect(&evidence("Raspberry Pi 4 Model B")).profile.name, "raspberry-pi-4b");
        assert_eq!(library.detect(&evidence("Teapot")).profile.name, "all");
    }

    #[test]
    fn a_folder_that_is_not_there_adds_nothing_and_a_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            Library::with_folder(&folder.path().join("none")).unwrap().profiles().count(),
            SHIPPED.len()
        );
        let path = folder.path().join("broken.toml");
        std::fs::write(&path, "name = \"b\"\ntitle = 3\n").unwrap();
        let message = Library::with_folder(folder.path()).unwrap_err().to_string();
        assert!(message.contains("broken.toml:2: title"), "{message}");
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert!(Library::with_folder(folder.path()).unwrap_err().to_string().contains("broken.toml"));
        for name in ["a.toml", "broken.toml"] {
            let text = "name = \"b\"\ntitle = \"B\"\n[[detect]]\nalways = true\nsource = \"s\"\n";
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let message = Library::with_folder(folder.path()).unwrap_err().to_string();
        assert!(message.contains("broken.toml") && message.contains("a.toml"), "{message}");
    }

    #[test]
    fn a_profile_is_forced_by_name_or_file() {
        let library = Library::shipped();
        let detection = library.forced("rk3588").unwrap();
        assert_eq!((detection.profile.name.as_str(), detection.specificity), ("rk3588", None));
        let message = library.forced("teapot").unwrap_err().to_string();
        assert!(message.contains("teapot") && message.contains("raspberry-pi-5"), "{message}");
        let message = library.forced("/nowhere/x.toml").unwrap_err().to_string();
        assert!(message.contains("/nowhere/x.toml"), "{message}");
    }
}
