//! The reference of the configuration, generated from its types: a JSON schema for editors, and a
//! Markdown page for people.

use super::RunConfig;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// The JSON schema of a configuration file.
pub fn schema() -> Value {
    schema_of::<RunConfig>("The configuration of a bitfit run")
}

/// Whether a configuration has the key `name` in `section`.
pub fn is_key(section: &str, name: &str) -> bool {
    let schema = schema();
    let keys = schema.pointer("/properties").and_then(|sections| sections.get(section));
    keys.and_then(|section| section.get("properties")?.get(name)).is_some()
}

/// The JSON schema, titled `title`, of a TOML file that is read as a `T`. It is draft 7, the draft
/// that TOML editors support.
pub fn schema_of<T: JsonSchema>(title: &str) -> Value {
    let settings = SchemaSettings::draft07().with(|s| s.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    plain(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), json!(title));
    }
    schema
}

/// Reduces the schema of Rust types to what TOML has: drops null and number formats, and marks
/// required keys instead of giving them an empty default.
fn plain(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        schema.as_array_mut().into_iter().flatten().for_each(plain);
        return;
    };
    let null = |value: &Value| *value == json!("null") || *value == json!({"type": "null"});
    for key in ["type", "anyOf"] {
        let Some(one_of) = map.get_mut(key).and_then(Value::as_array_mut) else { continue };
        one_of.retain(|one| !null(one));
        let [only] = one_of.as_mut_slice() else { continue };
        match only.take() {
            Value::Object(only) => {
                map.shift_remove(key);
                for (key, value) in only {
                    map.entry(key).or_insert(value);
                }
            }
            only => drop(map.insert(key.into(), only)),
        }
    }
    map.shift_remove("format");
    if map.contains_key("enum") {
        // `enum` lists the name in `const` together with its aliases.
        map.shift_remove("const");
    }
    for (key, value) in map.iter_mut() {
        match (key.as_str(), value) {
            // The names here are the configuration's own keys, so a key called `default` is no
            // schema keyword.
            ("properties", Value::Object(named)) => named.values_mut().for_each(plain),
            ("default" | "const", _) => {}
            (_, value) => plain(value),
        }
    }
    require(map);
}

/// Marks as required each path whose default is empty, and each section with a required key. Drops
/// the defaults of sections, which repeat those of their keys.
fn require(map: &mut Map<String, Value>) {
    let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let mut required = vec![];
    for (name, property) in properties.iter_mut().filter_map(|(n, p)| Some((n, p.as_object_mut()?)))
    {
        let section = property.contains_key("properties");
        if section || property.get("default").is_some_and(|value| *value == json!("")) {
            property.shift_remove("default");
            if !section || property.contains_key("required") {
                required.push(name.clone());
            }
        }
    }
    if !required.is_empty() {
        map.insert("required".into(), json!(required));
    }
}

/// The reference page of all keys, in Markdown.
pub fn page() -> String {
    let schema = schema();
    let mut page = String::from(
        "# Configuration\n\n\
         A run is described by one TOML file. Paths in it are relative to the file; in `--set SECTION.KEY=VALUE` they are relative to the\n\
         working directory, and `--set KEY=` gives a key its default again. Editors that know TOML check a file and complete its keys where its\n\
         first line is\n\n\
         ```toml\n#:schema bitfit.schema.json\n```\n\n\
         with the path of [the schema](bitfit.schema.json) as seen from there. This page and the schema are written by `bitfit docs`.\n",
    );
    for (section, part) in entries(&schema, "properties") {
        let text = part.get("description").and_then(Value::as_str).unwrap_or_default();
        let text = text.split_once(": ").map_or(text, |(_, text)| text);
        let _ = write!(
            page,
            "\n## `[{section}]`\n\n{}\n\n| key | values | default | meaning |\n|---|---|---|---|\n",
            sentence(text)
        );
        for (key, property) in entries(part, "properties") {
            let required = part.get("required").and_then(Value::as_array);
            let meaning = property.get("description").and_then(Value::as_str).unwrap_or_default();
            let mut meaning = meaning.split_whitespace().collect::<Vec<_>>().join(" ");
            let default = match property.get("default") {
                Some(value) => format!("`{value}`"),
                None if required.is_some_and(|keys| keys.contains(&json!(key))) => {
                    "required".into()
                }
                // A default that depends on other values is given in the description.
                None => match meaning.split_once("; by default ") {
                    Some((what, default)) => {
                        let default = default.trim_end_matches('.').to_owned();
                        meaning = format!("{what}.");
                        default
                    }
                    None => "none".into(),
                },
            };
            for (name, text) in named(property).iter().filter(|(_, text)| !text.is_empty()) {
                let _ = write!(meaning, "<br>{name}: {text}");
            }
            let _ = writeln!(
                page,
                "| `{section}.{key}` | {} | {default} | {} |",
                values(property),
                meaning.replace('|', "\\|")
            );
        }
    }
    page
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn entries<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(key).and_then(Value::as_object).into_iter().flatten()
}

/// The allowed names of a value, or of a list's entries, each with its description.
fn named(schema: &Value) -> Vec<(String, String)> {
    let all = schema.get("items").unwrap_or(schema);
    let one = |one: &Value| {
        let names = one.get("enum").and_then(Value::as_array).cloned();
        let names = names.or_else(|| Some(vec![one.get("const")?.clone()]))?;
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let text = one.get("description").and_then(Value::as_str).unwrap_or_default();
        Some((names.join(" or "), text.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    let ones = ["oneOf", "anyOf"].iter().filter_map(|key| all.get(*key)?.as_array());
    ones.flatten().filter_map(one).collect()
}

/// The allowed values, in words.
fn values(schema: &Value) -> String {
    let words = |key: &str| schema.get(key).and_then(Value::as_array);
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    if let Some(names) = words("enum") {
        return names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(one_of) = words("oneOf").or(words("anyOf")) {
        return one_of.iter().map(values).collect::<Vec<_>>().join(", ");
    }
    let number = |key: &str| schema.get(key).filter(|value| value.is_number());
    let range = [
        number("minimum").map(|n| format!("{n} or more")),
        number("exclusiveMinimum").map(|n| format!("above {n}")),
        number("maximum").map(|n| format!("{n} or less")),
        number("exclusiveMaximum").map(|n| format!("below {n}")),
    ];
    let range: Vec<String> = range.into_iter().flatten().collect();
    let kind = match schema.get("type").and_then(Value::as_str) {
        Some("array") => {
            let items = schema.get("items").map(values).unwrap_or_default();
            return format!("list of: {items}");
        }
        Some("object") => {
            let each = schema.get("additionalProperties").map(values).unwrap_or_default();
            return format!("table of: {each}");
        }
        Some("boolean") => "`true`, `false`",
        Some(other) => other,
        None => "",
    };
    if range.is_empty() { kind.into() } else { format!("{kind}, {}", range.join(", ")) }
}
