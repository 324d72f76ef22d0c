//! From patterns to files.

use std::fs;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use crate::SourceError;

fn matcher(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).build().map(|glob| glob.compile_matcher())
}

/// Whether this is a pattern at all.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    matcher(pattern).map(drop).map_err(|e| e.kind().to_string())
}

/// The files that the patterns name: pattern by pattern, each in the order of the names, none twice.
pub(super) fn expand(patterns: &[String]) -> Result<Vec<PathBuf>, SourceError> {
    let mut files = Vec::new();
    for pattern in patterns {
        for file in matching(pattern)? {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

fn matching(pattern: &str) -> Result<Vec<PathBuf>, SourceError> {
    let failed = |what: String, remedy: &str| SourceError { transient: false, place: pattern.to_owned(), what, remedy: remedy.to_owned() };
    // A name that exists means itself, whatever characters it has.
    let plain = Path::new(pattern);
    if plain.is_dir() {
        return Err(failed("is a folder".into(), &format!("name the files in it: `{}`", plain.join("*").display())));
    }
    if plain.exists() {
        return Ok(vec![plain.to_owned()]);
    }
    if !pattern.contains(['*', '?', '[', '{']) {
        return Err(failed("there is no such file".into(), &format!("check the path; it is relative to {}", folder())));
    }
    let matcher = matcher(pattern).map_err(|e| failed(e.kind().to_string(), "check the pattern"))?;
    let mut found = Vec::new();
    let root = root(pattern);
    let depth = if pattern.contains("**") { None } else { Some(depth(pattern, &root)) };
    walk(&root, &matcher, depth, &mut found).map_err(|(place, error)| SourceError {
        transient: false,
        place: place.display().to_string(),
        what: error.to_string(),
        remedy: "make the folder readable, or match less".into(),
    })?;
    if found.is_empty() {
        return Err(failed("matches no file".into(), &format!("check the pattern; it is relative to {}", folder())));
    }
    found.sort();
    Ok(found)
}

fn folder() -> String {
    std::env::current_dir().map_or_else(|_| "the current folder".into(), |d| d.display().to_string())
}

/// The folder before the first part of the pattern that has a wildcard.
fn root(pattern: &str) -> PathBuf {
    let literal = &pattern[..pattern.find(['*', '?', '[', '{']).unwrap_or(pattern.len())];
    match literal.rfind('/') {
        Some(0) => "/".into(),
        Some(at) => literal[..at].into(),
        None => ".".into(),
    }
}

/// How many folders deep below the root a match can lie. Alternatives in braces may hold separators, so it is at most
/// one for every separator.
fn depth(pattern: &str, root: &Path) -> usize {
    let rest = pattern.strip_prefix(root.to_str().unwrap_or_default()).unwrap_or(pattern);
    rest.trim_start_matches('/').matches('/').count() + 1
}

/// Gathers what matches in a folder and, so many deep, in the folders below.
fn walk(folder: &Path, matcher: &GlobMatcher, depth: Option<usize>, found: &mut Vec<PathBuf>) -> Result<(), (PathBuf, std::io::Error)> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // A folder that does not exist holds nothing that matches.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err((folder.to_owned(), error)),
    };
    for entry in entries {
        let path = entry.map_err(|e| (folder.to_owned(), e))?.path();
        let path = path.strip_prefix(".").map(Path::to_owned).unwrap_or(path);
        if path.is_dir() {
            // A link to a folder above could go on for ever.
            let deeper = match depth {
                None => !fs::symlink_metadata(&path).is_ok_and(|m| m.is_symlink()),
                Some(depth) => depth > 1,
            };
            if deeper {
                walk(&path, matcher, depth.map(|d| d - 1), found)?;
            }
        } else if matcher.is_match(&path) || matcher.is_match(Path::new(".").join(&path)) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path, patterns: &[&str]) -> Result<Vec<String>, String> {
        let patterns: Vec<String> = patterns.iter().map(|p| folder.join(p).display().to_string()).collect();
        let files = expand(&patterns).map_err(|e| e.what)?;
        Ok(files.iter().map(|f| f.strip_prefix(folder).unwrap().display().to_string()).collect())
    }

    #[test]
    fn patterns_give_files_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("deep/er")).unwrap();
        for name in ["b.gz", "a.gz", "c.txt", "[x].gz", "deep/a.gz", "deep/er/a.gz"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = |patterns: &[&str]| names(folder.path(), patterns);
        assert_eq!(found(&["*.gz"]).unwrap(), ["[x].gz", "a.gz", "b.gz"]);
        assert_eq!(found(&["[x].gz"]).unwrap(), ["[x].gz"]);
        assert_eq!(found(&["c.txt", "?.{gz,txt}"]).unwrap(), ["c.txt", "a.gz", "b.gz"]);
        assert_eq!(found(&["**/a.gz"]).unwrap(), ["a.gz", "deep/a.gz", "deep/er/a.gz"]);
        assert_eq!(found(&["*/a.gz"]).unwrap(), ["deep/a.gz"]);
        assert_eq!(found(&["deep/e*/*"]).unwrap(), ["deep/er/a.gz"]);
        assert_eq!(found(&["*.zst"]).unwrap_err(), "matches no file");
        assert_eq!(found(&["nowhere/*"]).unwrap_err(), "matches no file");
        assert_eq!(found(&["d.gz"]).unwrap_err(), "there is no such file");
        assert_eq!(found(&["deep"]).unwrap_err(), "is a folder");
        assert!(check("[a").is_err() && check("{a").is_err() && check("a*").is_ok());
    }

    #[test]
    fn patterns_may_be_relative() {
        assert_eq!(root("*.gz"), Path::new("."));
        assert_eq!(root("/data/x*/y"), Path::new("/data"));
        assert_eq!(root("/*"), Path::new("/"));
        assert_eq!(expand(&["src/fil?/mod.rs".into()]).unwrap(), [Path::new("src/file/mod.rs")]);
        assert_eq!(expand(&["Carg?.toml".into()]).unwrap(), [Path::new("Cargo.toml")]);
        assert_eq!(expand(&["./Carg?.toml".into()]).unwrap(), [Path::new("Cargo.toml")]);
    }
}
