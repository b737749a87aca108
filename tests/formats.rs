//! Files of rows: which there are, what is refused, and how much may come out of one.

use crate::common::{Scratch, golden_dir, measured, refused, stderr, stdout, succeeded};
use bitfit::internal::data::{self, Columns, LabelColumns, Row};
use parquet::basic::{Compression, Encoding, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Rows with text and label.
fn labelled() -> Columns {
    let labels = LabelColumns::One { name: "label".into(), separator: None };
    Columns { labels, ..texts_alone() }
}

/// What `bitfit predict` reads.
fn texts_alone() -> Columns {
    Columns {
        text: "text".into(),
        text_pair: None,
        labels: LabelColumns::None,
        header: true,
        delimiter: None,
        skip_bad_rows: false,
    }
}

fn rows(path: &Path, columns: &Columns) -> Vec<(String, String)> {
    let label = |row: &Row| row.labels().first().map_or("-".into(), |label| label.name.clone());
    let table = data::read(path, columns).unwrap_or_else(|error| panic!("{error}"));
    table.rows.iter().map(|row| (row.text.clone(), label(row))).collect()
}

#[track_caller]
fn error(path: &Path, columns: &Columns, parts: &[&str]) {
    let error = data::read(path, columns).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "expected {part:?} in: {error}");
    }
    assert!(error.len() < 3000, "{} characters: {error}", error.len());
}

fn owned(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(text, label)| (text.to_string(), label.to_string())).collect()
}

/// 10,000 files of scripts/make_golden_csv.py: the same rows as Python's csv module, or an error
/// where it has one; and an error too where rows have more or fewer cells than the header.
#[test]
fn a_csvs_rows_are_those_that_python_reads() {
    let packed = std::fs::read(golden_dir().join("csv.jsonl.gz")).unwrap();
    let mut lines = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut lines).unwrap();
    let scratch = Scratch::new();
    let (mut read, mut refused) = (0, 0);
    for line in lines.lines() {
        let (text, count, crc): (String, i64, u32) = serde_json::from_str(line).unwrap();
        let path = scratch.write("x.csv", &text);
        match data::read(&path, &texts_alone()) {
            Ok(table) => {
                let cells: String = table.rows.iter().map(|row| row.text.clone() + "\0").collect();
                let found = (table.rows.len() as i64, crc32fast::hash(cells.as_bytes()));
                assert_eq!(found, (count, crc), "{text:?}");
                read += 1;
            }
            Err(error) => {
                let error = error.to_string();
                let expected: &[&str] = match count {
                    // What Python refuses may have a row before that is refused here.
                    -1 => &["a quote", " columns, expected ", "not closed?"],
                    -2 => &[" columns, expected ", "not closed?"],
                    0 => &["no rows"],
                    _ => &[],
                };
                let is_expected = expected.iter().any(|part| error.contains(part));
                assert!(is_expected, "{count} rows of {text:?}: {error}");
                refused += 1;
            }
        }
    }
    println!("{read} read as by Python, {refused} refused");
    assert!(read > 4000 && refused > 4000 && read + refused == 10_000);
}

#[test]
fn a_quote_out_of_place_is_an_error_that_names_the_line() {
    let scratch = Scratch::new();
    let skipping = Columns { skip_bad_rows: true, ..labelled() };
    let refuse = |text: &str, parts: &[&str]| {
        let path = scratch.write("x.csv", text);
        error(&path, &labelled(), parts);
        // Rows would be lost that are not bad themselves.
        error(&path, &skipping, parts);
    };
    // In the last column the number of cells is right.
    refuse("label,text\na,x\nb,\"y\na,z\nb,w\n", &["x.csv:3", "is never closed"]);
    refuse("label,text\r\na,x\r\n\r\nb,\"y", &["x.csv:4", "is never closed"]);
    refuse(
        "label,text\na,\"x\ny\"z\nb,w\n",
        &["x.csv:2", "on line 3: found \"z\"", "expected ','"],
    );
    refuse("label,text\na,\"x\" \nb,w\n", &["x.csv:2", "found \" \"", "written twice"]);
    refuse("text,label\n\"so \\\"good\\\"\",a\nx,b\n", &["x.csv:2", "\\\"", "MySQL and Spark"]);
    refuse("text,label\n\"good\\\"\",a\n\"bad\\\"\",b\n", &["x.csv:2"]);
    let long = "z".repeat(1 << 20);
    refuse(&format!("text,label\n\"x\"{long},a\n"), &["x.csv:2", "zzz..."]);
    // Where quotes are letters, a tab-separated file is a .tsv.
    let tabs = Columns { delimiter: Some('\t'), ..labelled() };
    error(
        &scratch.write("x.csv", "text\tlabel\n\"x\ta\n"),
        &tabs,
        &["x.csv:2", "rename it to .tsv"],
    );
    // Within a cell that is not in quotes they are letters here too, as in Python.
    let path = scratch.write("x.csv", "text,label\n5\" nail,a\n \"x\",b\n\"\"\"x\"\"\",c\n");
    assert_eq!(
        rows(&path, &labelled()),
        owned(&[("5\" nail", "a"), (" \"x\"", "b"), ("\"x\"", "c")])
    );
}

#[test]
fn columns_are_separated_by_commas_semicolons_tabs_or_bars() {
    let scratch = Scratch::new();
    let expected = owned(&[("good", "a"), ("two\nlines", "b"), ("pl,;|ain", "a")]);
    let table = |delimiter: &str| {
        ["id,text,label\n", "1,good,a\n", "2,\"two\nlines\",b\n", "3,\"pl\0;|ain\",a\n"]
            .map(|line| line.replace(',', delimiter).replace('\0', ","))
            .concat()
    };
    for delimiter in [",", ";", "\t", "|"] {
        let path = scratch.write("x.csv", table(delimiter));
        assert_eq!(rows(&path, &labelled()), expected, "{delimiter:?}");
        let key = Columns { delimiter: delimiter.chars().next(), ..labelled() };
        assert_eq!(rows(&path, &key), expected, "{delimiter:?}");
        // Excel's first line, quoted or not.
        for first in [format!("sep={delimiter}\r\n"), format!("\"SEP={delimiter}\"\n")] {
            let path = scratch.write("x.csv", format!("\u{feff}{first}{}", table(delimiter)));
            assert_eq!(rows(&path, &labelled()), expected, "{delimiter:?}");
            assert_eq!(rows(&path, &key), expected, "{delimiter:?}");
            let read = data::read(&path, &labelled()).unwrap();
            assert_eq!(read.rows[0].place.line, Some(3));
        }
        // Without a header the columns are those whose numbers fit, in all of the first lines.
        let headless = table(delimiter).split_once('\n').unwrap().1.to_owned();
        let path = scratch.write("x.csv", headless);
        let by_number = Columns {
            text: "2".into(),
            labels: LabelColumns::One { name: "3".into(), separator: None },
            header: false,
            ..labelled()
        };
        assert_eq!(rows(&path, &by_number), expected, "{delimiter:?}");
    }
    // Any other is said, by the key or for Excel.
    let path = scratch.write("x.csv", table("^"));
    error(&path, &labelled(), &["no column \"text\"", "id^text^label", "data.delimiter"]);
    assert_eq!(rows(&path, &Columns { delimiter: Some('^'), ..labelled() }), expected);
    let path = scratch.write("x.csv", format!("sep=^\n{}", table("^")));
    assert_eq!(rows(&path, &labelled()), expected);
    let semicolons = Columns { delimiter: Some(';'), ..labelled() };
    error(&path, &semicolons, &["x.csv:1: the first line is sep=^", "data.delimiter is ';'"]);
    // Without a header, what never occurs would make one column of each line.
    let path = scratch.write("x.csv", "good,0\nbad,1\nfine, really,1\n");
    let headless = Columns { text: "1".into(), header: false, ..labelled() };
    let headless = Columns { labels: LabelColumns::None, ..headless };
    error(&path, &headless, &["x.csv:3"]);
    // And two that fit are not chosen from.
    let path = scratch.write("x.csv", "a warm, funny film;pos\n");
    error(
        &path,
        &headless,
        &["x.csv:1", "commas or by semicolons", "data.delimiter", "--delimiter"],
    );
    let semicolons = Columns { delimiter: Some(';'), ..headless };
    assert_eq!(data::read(&path, &semicolons).unwrap().rows[0].text, "a warm, funny film");
    // Where columns are missing, what was found is said.
    let path = scratch.write("x.csv", "sentence;class\ngood;a\n");
    error(&path, &labelled(), &["the header has sentence, class, separated by semicolons"]);
    // A comma in texts makes no column where the header has none.
    let path = scratch.write("x.csv", "text;label\ngood, warm;a\nbad;b\n");
    assert_eq!(rows(&path, &labelled()), owned(&[("good, warm", "a"), ("bad", "b")]));
}

/// A .tsv stays what it is, and says what is likely wrong.
#[test]
fn columns_of_a_tsv_are_separated_by_tabs() {
    let scratch = Scratch::new();
    let path = scratch.write("x.tsv", "\"text\"\t\"label\"\n\"good\"\t\"a\"\n");
    error(
        &path,
        &labelled(),
        &["\"text\\\", \\\"label\\\"; quotes are ordinary characters", ".csv"],
    );
    assert_eq!(rows(&scratch.write("x.csv", std::fs::read(&path).unwrap()), &labelled()).len(), 1);
    let path = scratch.write("x.tsv", "text,label\ngood,a\n");
    error(&path, &labelled(), &["separated by tabs", "rename the file to .csv"]);
    let semicolons = Columns { delimiter: Some(';'), ..labelled() };
    error(&path, &semicolons, &["data.delimiter: found ';', but columns of a .tsv"]);
}

#[test]
fn a_header_that_comes_again_is_no_row() {
    let scratch = Scratch::new();
    for (name, table) in [
        ("x.csv", "id,text,label\n1,good,a\nid,text,label\n2,bad,b\n"),
        ("x.tsv", "text\tlabel\ngood\ta\ntext\tlabel\n"),
    ] {
        let path = scratch.write(name, table);
        error(&path, &labelled(), &[&format!("{name}:3"), "the header occurs again"]);
        let left_out = Columns { skip_bad_rows: true, ..labelled() };
        assert!(data::read(&path, &left_out).unwrap().rows.iter().all(|row| row.text != "text"));
    }
}

#[test]
fn texts_that_are_no_table_are_told_from_one() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=2"]));
    scratch.write("x.txt", "text,label\ngood,a\n");
    for (flag, value) in [("--text-column", "text"), ("--delimiter", ";")] {
        let args = ["predict", "--run", "run", "--input", "x.txt", flag, value];
        refused(&scratch.bitfit(&args), 2, &[flag, "no table", ".csv"]);
    }
    // A run's delimiter is for its own files.
    let config = std::fs::read_to_string(scratch.path("run/config.toml")).unwrap();
    scratch.write("run/config.toml", config.replace("[data]\n", "[data]\ndelimiter = \";\"\n"));
    scratch.write("x.tsv", "text\tlabel\ngood\tpositive\nbad\tnegative\n");
    let tsv = ["predict", "--run", "run", "--input", "x.tsv"];
    succeeded(&scratch.bitfit(&tsv));
    let said = [&tsv[..], &["--delimiter", ";"]].concat();
    refused(&scratch.bitfit(&said), 1, &["but columns of a .tsv"]);
    scratch.write("old.txt", "one\rtwo\rthree\r");
    scratch.write("wide.txt", "a\0b\0\n");
    for (name, parts) in [("old.txt", "carriage return"), ("wide.txt", "UTF-16")] {
        let output = scratch.bitfit(&["predict", "--run", "run", "--input", name]);
        refused(&output, 1, &[&format!("{name}:1"), parts]);
    }
    let wide: Vec<u8> = "text,label\ngood,a\n".bytes().flat_map(|byte| [byte, 0]).collect();
    error(&scratch.write("wide.csv", wide), &labelled(), &["wide.csv", "UTF-16"]);
    // What is read is not written over.
    for output in ["x.txt", "base/config.json", "run/delta.safetensors", "run/config.toml"] {
        let args = ["predict", "--run", "run", "--input", "x.txt", "--output", output];
        refused(&scratch.bitfit(&args), 2, &["--output", output, "is there, and of what is read"]);
    }
    // Before anything is computed.
    let long = "x".repeat(256);
    for output in [&long, "folder/"] {
        let args = ["predict", "--run", "run", "good", "--output", output];
        refused(&scratch.bitfit(&args), 1, &["cannot write"]);
    }
}

/// The key and the argument, with the line in the log that says what was found.
#[test]
fn a_delimiter_is_said_in_the_configuration_and_to_eval_and_predict() {
    let scratch = Scratch::new();
    let semicolons = |text: &str| {
        let line = |line: &str| format!("{}\n", line.replace('\t', ";"));
        text.lines().map(line).collect::<String>()
    };
    let tsv = |name: &str| std::fs::read_to_string(scratch.path(name)).unwrap();
    scratch.write("train.csv", semicolons(&tsv("train.tsv")));
    scratch.write("eval.csv", semicolons(&tsv("eval.tsv")).replace(';', "^"));
    let config = tsv("config.toml").replace(".tsv", ".csv");
    scratch.write("config.toml", config);
    // Two files of different delimiters have no key that fits both.
    refused(&scratch.train(&["--dry-run"]), 1, &["eval.csv:1: no column \"text\""]);
    let fraction = ["--set", "data.eval=", "--set", "training.max_steps=2"];
    let output = scratch.train(&fraction);
    succeeded(&output);
    let found = stderr(&output).lines().filter(|line| line.contains("semicolons")).count();
    assert_eq!(found, 1, "{}", stderr(&output));
    let eval = |more: &[&str]| {
        scratch.bitfit(&[&["eval", "--run", "run", "--data", "eval.csv"], more].concat())
    };
    refused(&eval(&[]), 1, &["no column \"text\""]);
    succeeded(&eval(&["--delimiter", "^"]));
    refused(&eval(&["--delimiter", "^^"]), 2, &["--delimiter", "expected one character"]);
    let predict = ["predict", "--run", "run", "--input", "eval.csv", "--delimiter", "^"];
    assert_eq!(stdout(&scratch.bitfit(&predict)).lines().count(), 32);
    scratch.write("tabs.csv", tsv("eval.tsv"));
    let predict = ["predict", "--run", "run", "--input", "tabs.csv", "--delimiter", "\\t"];
    assert_eq!(stdout(&scratch.bitfit(&predict)).lines().count(), 32);
    let output = scratch.train(&["--overwrite", "--dry-run", "--set", "data.delimiter=\"\\n\""]);
    refused(&output, 2, &["data.delimiter", "expected one character"]);
    let output = scratch.train(&["--overwrite", "--dry-run", "--set", "data.delimiter=';;'"]);
    refused(&output, 2, &["delimiter", "expected a character"]);
}

/// `bitfit predict` writes a line for each row, or ends with an error.
#[test]
fn predict_answers_all_rows_or_says_why_not() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=2"]));
    let predict = |input: &str| {
        scratch.bitfit(&["predict", "--run", "run", "--input", input, "--device", "cpu"])
    };
    let count = |input: &str| {
        let output = predict(input);
        succeeded(&output);
        stdout(&output).lines().count()
    };
    scratch.write("open.csv", "label,text\na,fine\nb,\"open\na,fine\nb,fine\n");
    refused(&predict("open.csv"), 1, &["open.csv:3", "a quote"]);
    let eval = scratch.bitfit(&["eval", "--run", "run", "--data", "open.csv"]);
    refused(&eval, 1, &["open.csv:3", "a quote"]);
    refused(&scratch.train(&["--overwrite", "--set", "data.train=open.csv"]), 1, &["open.csv:3"]);
    // A long cell may be meant, and is told.
    let lines = "line\n".repeat(20);
    scratch.write("long.csv", format!("text\nfine\n\"{lines}end\"\nfine\n\"{lines}end\"\n"));
    let output = predict("long.csv");
    assert_eq!(stdout(&output).lines().count(), 4);
    let warning = "long.csv: lines 3 to 23 are one cell (1 more cells have more than 20 lines)";
    assert!(stderr(&output).contains(warning), "{}", stderr(&output));
    scratch.write("short.csv", format!("text\n\"{}end\"\n", "line\n".repeat(19)));
    assert!(!stderr(&predict("short.csv")).contains("one cell"));
    scratch.write("rows.json", "[{\"text\": \"fine\"},\n{\"text\": \"bad\"}]");
    assert_eq!(count("rows.json"), 2);
    // Texts, one a line, are unpacked on the way.
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
    packed.write_all("a\nb\n\nd".repeat(100).as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    scratch.write("texts.txt.gz", &packed);
    assert_eq!(count("texts.txt.gz"), 301);
    scratch.write("cut.txt.gz", &packed[..packed.len() / 2]);
    refused(&predict("cut.txt.gz"), 1, &["cut.txt.gz: truncated, damaged"]);
    // What the shell makes of <(...), a pipe of its own.
    let shell = format!(
        "exec {} predict --run run --input <(printf 'fine\\nbad\\n')",
        env!("CARGO_BIN_EXE_bitfit")
    );
    let output = Command::new("bash").args(["-c", &shell]).current_dir(scratch.path("")).output();
    let output = output.unwrap();
    assert_eq!(stdout(&output).lines().count(), 2, "{}", stderr(&output));
    // A line without an end is refused before it takes all memory.
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit"));
    command.args(["predict", "--run", "run", "--input", "/dev/zero"]);
    let (output, peak) = measured(command.current_dir(scratch.path("")));
    refused(&output, 1, &["/dev/zero:1: a line of more than 64 MiB"]);
    let (_, base) = scratch.bitfit_measured(&["inspect", "--model", "base"]);
    assert!(peak < base + 1024, "{peak} MiB, and {base} MiB for the base alone");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit"));
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    let output = command
        .args(["predict", "--run", "run", "--input", "-"])
        .current_dir(scratch.path(""))
        .stdin(zeros)
        .output();
    refused(&output.unwrap(), 1, &["standard input:1: a line of more than 64 MiB"]);
}

#[test]
fn a_pipe_or_a_device_is_no_file_of_rows() {
    let scratch = Scratch::new();
    for name in ["pipe.csv", "pipe.jsonl.gz", "pipe.parquet", "folder/a/pipe.txt"] {
        std::fs::create_dir_all(scratch.path(name).parent().unwrap()).unwrap();
        assert!(Command::new("mkfifo").arg(scratch.path(name)).status().unwrap().success());
    }
    for name in ["pipe.csv", "pipe.jsonl.gz", "pipe.parquet", "folder"] {
        error(&scratch.path(name), &labelled(), &["a pipe; expected a file"]);
    }
    for name in ["zero.csv", "zero.json", "zero.tsv.xz", "zero.parquet"] {
        std::os::unix::fs::symlink("/dev/zero", scratch.path(name)).unwrap();
        error(&scratch.path(name), &labelled(), &[name, "a device; expected a file"]);
    }
    // A text that is a link to nowhere is not left out.
    scratch.write("dangling/a/1.txt", "fine");
    std::os::unix::fs::symlink("nowhere", scratch.path("dangling/a/2.txt")).unwrap();
    error(&scratch.path("dangling"), &labelled(), &["2.txt", "No such file"]);
}

#[test]
fn a_folder_of_tables_is_told_to_name_one() {
    let scratch = Scratch::new();
    scratch.write("files/train.csv", "text,label\na,b\n");
    error(&scratch.path("files"), &labelled(), &["\"train.csv\"", "name the file itself"]);
}

#[test]
fn json_is_an_object_a_line_or_one_array() {
    let scratch = Scratch::new();
    let expected = owned(&[("good", "1"), ("b\"ad\nly", "0")]);
    let lines = "{\"text\": \"good\", \"label\": 1}\n{\"label\": 0, \"text\": \"b\\\"ad\\nly\", \"x\": [{}]}\n";
    let array = format!("\u{feff} [\n{}]\n", lines.trim_end().replace("}\n", "},\n\n"));
    for text in [lines, &array] {
        assert_eq!(rows(&scratch.write("x.json", text), &labelled()), expected, "{text}");
    }
    let read = data::read(&scratch.path("x.json"), &labelled()).unwrap();
    let places: Vec<_> = read.rows.iter().map(|row| row.place.line).collect();
    assert_eq!(places, [Some(2), Some(4)]);
    let refuse = |text: &str, parts: &[&str]| {
        error(&scratch.write("x.json", text), &labelled(), parts);
    };
    refuse(
        "[{\"text\": \"a\", \"label\": 1},\n{\"text\": 2}]",
        &["x.json:2", "no field \"label\""],
    );
    refuse("[{\"text\": \"a\", \"label\": 1},\n[1]]", &["x.json:2", "not a JSON object"]);
    refuse("[{\"text\": \"a\", \"label\": 1}", &["x.json:1", "not JSON", "EOF"]);
    refuse("[{\"text\": \"a\", \"label\": 1}] x", &["not JSON", "trailing"]);
    refuse(
        "{\n  \"data\": []\n}\n",
        &["expected one array of JSON objects, or one JSON object per line"],
    );
    refuse("{\"data\": []}", &["x.json:1", "no field \"text\"", "the object has data"]);
    refuse("[]", &["no rows"]);
    // A bad row of an array is left out like one of a line.
    let path = scratch
        .write("x.json", "[{\"text\": \"a\", \"label\": 1}, {}, {\"text\": \"b\", \"label\": 2}]");
    assert_eq!(rows(&path, &Columns { skip_bad_rows: true, ..labelled() }).len(), 2);
    // Messages stay short whatever is in the file.
    let long = "k".repeat(100_000);
    let keys: Vec<String> = (0..10_000).map(|i| format!("\"{long}{i}\": {i}")).take(50).collect();
    refuse(&format!("[{{{}}}]", keys.join(",")), &["no field", ", ..."]);
    let header = vec![long.as_str(); 50].join(",");
    error(&scratch.write("x.csv", format!("{header}\n")), &labelled(), &["no column", ", ..."]);
    let list = vec!["0"; 1 << 20].join(",");
    refuse(&format!("[{{\"text\": [{list}], \"label\": 1}}]"), &["found a value of 2097153 bytes"]);
}

type Pack = fn(&[u8]) -> Vec<u8>;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut writer = bzip2::write::BzEncoder::new(vec![], bzip2::Compression::best());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    // With a checksum, as the program zstd writes it.
    let mut writer = zstd::stream::write::Encoder::new(vec![], 3).unwrap();
    writer.include_checksum(true).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut writer = lzma_rust2::XzWriter::new(vec![], options).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

const PACKS: [(&str, Pack); 4] = [("gz", gzip), ("zst", zstd), ("bz2", bzip2), ("xz", xz)];

#[test]
fn compressed_files_are_read_as_what_is_in_them() {
    let scratch = Scratch::new();
    let expected = owned(&[("good, warm", "a"), ("bad", "b")]);
    let files = [
        ("csv", "text,label\n\"good, warm\",a\nbad,b\n"),
        ("tsv", "text\tlabel\ngood, warm\ta\nbad\tb\n"),
        (
            "jsonl",
            "{\"text\":\"good, warm\",\"label\":\"a\"}\n{\"text\":\"bad\",\"label\":\"b\"}\n",
        ),
        ("json", "[{\"text\":\"good, warm\",\"label\":\"a\"},{\"text\":\"bad\",\"label\":\"b\"}]"),
    ];
    for (ending, pack) in PACKS {
        for (format, text) in files {
            let name = format!("x.{format}.{ending}");
            let packed = pack(text.as_bytes());
            let path = scratch.write(&name, &packed);
            assert_eq!(rows(&path, &labelled()), expected, "{name}");
            // In two parts, one after the other, as gzip and its like may be joined.
            let (first, second) = text.as_bytes().split_at(20);
            let path = scratch.write(&name, [pack(first), pack(second)].concat());
            assert_eq!(rows(&path, &labelled()), expected, "{name}");
            // Cut off anywhere, or with something behind it.
            for length in 0..packed.len() {
                let path = scratch.write(&name, &packed[..length]);
                error(
                    &path,
                    &labelled(),
                    &[&name, if length == 0 { "empty" } else { "truncated" }],
                );
            }
            let path = scratch.write(&name, [&packed[..], b"behind"].concat());
            error(&path, &labelled(), &[&name, "truncated, damaged"]);
            let path = scratch.write(&name, text);
            error(&path, &labelled(), &[&name, "not in the format that its name says"]);
            let path = scratch.write(&format!("x.{format}"), &packed);
            error(&path, &labelled(), &[&format!("the contents are those of a .{ending} file")]);
            // Damaged anywhere: the same rows (of the first bytes some say nothing), or an error.
            for bit in 0..8 * packed.len() * usize::from(format == "csv") {
                let mut damaged = packed.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let path = scratch.write(&name, &damaged);
                if data::read(&path, &labelled()).is_ok() {
                    assert_eq!(rows(&path, &labelled()), expected, "{name}, bit {bit}");
                }
            }
        }
        let path = scratch.write(&format!("x.parquet.{ending}"), "");
        error(&path, &labelled(), &["a compression of its own"]);
        let path = scratch.write(&format!("x.{ending}"), "");
        error(&path, &labelled(), &["expected .csv, .tsv, .jsonl"]);
        let path = scratch.write(&format!("x.csv.{ending}"), pack(b"text,label\nna\xefve,a\n"));
        error(&path, &labelled(), &[":2: not UTF-8"]);
    }
    // A .xz that Python wrote.
    let path = golden_dir().join("rows.csv.xz");
    assert_eq!(rows(&path, &labelled()), owned(&[("a warm, funny film", "1"), ("dull", "0")]));
}

fn parquet_of(scratch: &Scratch, name: &str, texts: &[&str]) {
    let texts: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
    write_texts(&scratch.path(name), WriterProperties::builder(), &texts);
}

fn empty_folder(scratch: &Scratch, name: &str) {
    let _ = std::fs::remove_dir_all(scratch.path(name));
    std::fs::create_dir_all(scratch.path(name).join("data")).unwrap();
}

fn texts_of(scratch: &Scratch, path: &str) -> Vec<String> {
    rows(&scratch.path(path), &labelled()).into_iter().map(|(text, _)| text).collect()
}

/// Parquet files of one split are one table, in order, whole; those of several never are.
#[test]
fn a_folder_of_parquet_files_is_one_split() {
    let scratch = Scratch::new();
    let parquet = |name: &str, texts: &[&str]| parquet_of(&scratch, name, texts);
    let folder = |name: &str| empty_folder(&scratch, name);
    let texts = |path: &str| texts_of(&scratch, path);
    for place in ["set", "set/data"] {
        folder("set");
        parquet(&format!("{place}/train-00001-of-00002.parquet"), &["c"]);
        let missing = "found 1 of the 2 files that data/train-00001-of-00002.parquet belongs to";
        error(&scratch.path("set"), &labelled(), &[place, missing]);
        parquet(&format!("{place}/train-00000-of-00002.parquet"), &["a", "b"]);
        scratch.write("set/README.md", "");
        assert_eq!(texts("set"), ["a", "b", "c"]);
        let read = data::read(&scratch.path("set"), &labelled()).unwrap();
        assert!(read.rows[2].place.path.ends_with("train-00001-of-00002.parquet"));
        // A split of which another part lies there is named, and so are two uploads of one.
        parquet(&format!("{place}/test-00000-of-00001.parquet"), &["d"]);
        error(&scratch.path("set"), &labelled(), &[place, "splits, test, train; expected"]);
        std::fs::remove_file(scratch.path(place).join("test-00000-of-00001.parquet")).unwrap();
        parquet(&format!("{place}/train-00000-of-00001.parquet"), &["d"]);
        error(
            &scratch.path("set"),
            &labelled(),
            &["train-00000-of-00001.parquet, data/train-00000"],
        );
    }
}

#[test]
fn a_folder_of_numbered_parquet_files_is_whole() {
    let scratch = Scratch::new();
    let parquet = |name: &str, texts: &[&str]| parquet_of(&scratch, name, texts);
    let folder = |name: &str| empty_folder(&scratch, name);
    let texts = |path: &str| texts_of(&scratch, path);
    // Numbered alone, or one file.
    folder("set");
    parquet("set/0000.parquet", &["a"]);
    parquet("set/0002.parquet", &["c"]);
    error(&scratch.path("set"), &labelled(), &["no file data/0001.parquet"]);
    parquet("set/0001.parquet", &["b"]);
    assert_eq!(texts("set"), ["a", "b", "c"]);
    folder("set");
    parquet("set/data/validation.parquet", &["a"]);
    assert_eq!(texts("set"), ["a"]);
    parquet("set/data/test.parquet", &["b"]);
    error(&scratch.path("set"), &labelled(), &["test, validation"]);
    // In one place, and nothing else that could be meant.
    parquet("set/test.parquet", &["b"]);
    error(&scratch.path("set"), &labelled(), &["set", "both here and in the folder data"]);
    folder("set");
    parquet("set/train.parquet", &["a"]);
    scratch.write("set/good/1.txt", "a text");
    error(&scratch.path("set"), &labelled(), &["class folders such as", "set/good"]);
    // As other programs write one table.
    folder("set");
    parquet("set/part-00000-1f.c000.parquet", &["a"]);
    parquet("set/part-00001-1f.c000.parquet", &["b"]);
    assert_eq!(texts("set"), ["a", "b"]);
    // The names of classes are the same in all.
    folder("set");
    for i in 0..2 {
        let to = scratch.path(&format!("set/train-0000{i}-of-00002.parquet"));
        std::fs::copy(golden_dir().join("hub.parquet"), to).unwrap();
    }
    let read = data::read(&scratch.path("set"), &labelled()).unwrap();
    assert_eq!(read.rows.len(), 8);
    assert_eq!(read.classes.unwrap(), ["neg", "pos"]);
}

#[test]
fn a_data_set_without_an_owner_is_refused_with_the_way_out() {
    let scratch = Scratch::new();
    for key in ["data.train", "data.eval"] {
        let output = scratch.train(&["--dry-run", "--set", &format!("{key}=imdb")]);
        refused(&output, 2, &[key, "imdb, which is not there", "OWNER/NAME", "stanfordnlp/imdb"]);
    }
    // A file that was forgotten is none of the Hub's.
    let output = scratch.train(&["--dry-run", "--set", "data.train=imdb.csv.gz"]);
    refused(&output, 1, &["imdb.csv.gz: No such file"]);
}

/// Writes the columns `text` and `label`.
fn write_texts(path: &Path, properties: WriterPropertiesBuilder, texts: &[ByteArray]) {
    let schema = "message rows { required binary text (UTF8); required int32 label; }";
    let labels: Vec<i32> = (0..texts.len()).map(|i| i as i32 % 2).collect();
    write_parquet(path, schema, properties, |i, column| match i {
        0 => drop(column.typed::<ByteArrayType>().write_batch(texts, None, None).unwrap()),
        _ => drop(column.typed::<Int32Type>().write_batch(&labels, None, None).unwrap()),
    });
}

fn write_parquet(
    path: &Path,
    schema: &str,
    properties: WriterPropertiesBuilder,
    write: impl Fn(usize, &mut parquet::file::writer::SerializedColumnWriter<'_>),
) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut i = 0;
    while let Some(mut column) = group.next_column().unwrap() {
        write(i, &mut column);
        column.close().unwrap();
        i += 1;
    }
    group.close().unwrap();
    writer.close().unwrap();
}

/// A file whose page says that it unpacks to 100 bytes, and unpacks to more.
fn lying(path: &Path, codec: Compression) {
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_compression(codec)
        .set_data_page_size_limit(1 << 30);
    write_texts(path, properties, &[ByteArray::from(vec![b'a'; 300 << 20])]);
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let page = reader.metadata().row_group(0).column(0).data_page_offset() as usize;
    let mut bytes = std::fs::read(path).unwrap();
    // Kind, and the size in five bytes of seven bits each.
    assert_eq!((bytes[page], bytes[page + 2], bytes[page + 7] >> 7), (0x15, 0x15, 0));
    bytes[page + 3..page + 8].copy_from_slice(&[0xC8, 0x81, 0x80, 0x80, 0]);
    std::fs::write(path, bytes).unwrap();
}

/// Small files that hold much: refused, with a peak of resident memory at most 1 GiB above what the
/// base alone takes.
struct Bombs {
    scratch: Scratch,
    /// Peak memory for the base alone, in MiB.
    base: u64,
}

impl Bombs {
    fn new() -> Self {
        let scratch = Scratch::new();
        let (output, base) = scratch.bitfit_measured(&["inspect", "--model", "base"]);
        succeeded(&output);
        Self { scratch, base }
    }

    /// Checks that a training on the file or folder `name` is refused in time.
    fn refused(&self, name: &str, more: &[&str], parts: &[&str]) {
        let set = format!("data.train={name}");
        let args = ["train", "--config", "config.toml", "--dry-run", "--set", &set];
        let (output, peak) = self.scratch.bitfit_measured(&[&args, more].concat());
        println!(
            "{name}: {} MiB above the base: {}",
            peak.saturating_sub(self.base),
            stderr(&output).lines().last().unwrap_or_default()
        );
        refused(&output, 1, &[&[name][..], parts].concat());
        let base = self.base;
        assert!(peak < base + 1024, "{name}: {peak} MiB, and {base} MiB for the base alone");
    }

    /// The same of a file that `make` writes.
    fn made(&self, name: &str, make: &dyn Fn(&Path), parts: &[&str]) {
        let path = self.scratch.path(name);
        make(&path);
        println!("{name}: {} bytes", std::fs::metadata(&path).unwrap().len());
        self.refused(name, &[], parts);
        std::fs::remove_file(&path).unwrap();
    }
}

const UNPACKS: &[&str] = &["decompress to more than 256 MiB"];

fn packed() -> parquet::file::properties::WriterPropertiesBuilder {
    let zstd_1 = Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
    WriterProperties::builder().set_compression(zstd_1)
}

#[test]
fn a_bomb_of_parquet_is_refused_before_it_takes_memory() {
    let bombs = Bombs::new();
    let bomb = |name: &str, make: &dyn Fn(&Path), parts: &[&str]| bombs.made(name, make, parts);
    let text = ByteArray::from(vec![b'a'; 1 << 20]);
    // One text in a dictionary, many rows.
    bomb(
        "dictionary.parquet",
        &|path| {
            let properties = packed().set_dictionary_page_size_limit(1 << 30);
            write_texts(path, properties, &vec![text.clone(); 3000]);
        },
        UNPACKS,
    );
    // One text, which each row repeats the whole of.
    bomb(
        "prefixes.parquet",
        &|path| {
            let properties = packed()
                .set_dictionary_enabled(false)
                .set_column_encoding("text".into(), Encoding::DELTA_BYTE_ARRAY);
            write_texts(path, properties, &vec![text.clone(); 3000]);
        },
        UNPACKS,
    );
    bomb(
        "text.parquet",
        &|path| {
            let properties = packed().set_dictionary_enabled(false);
            write_texts(path, properties, &[ByteArray::from(vec![b'a'; 400 << 20])]);
        },
        UNPACKS,
    );
    // Many files, none of which unpacks to too much alone.
    let scratch = &bombs.scratch;
    std::fs::create_dir(scratch.path("shards")).unwrap();
    let properties = || packed().set_dictionary_page_size_limit(1 << 30);
    write_texts(&scratch.path("shards/0000.parquet"), properties(), &vec![text.clone(); 200]);
    for i in 1..20 {
        let [from, to] = [0, i].map(|i| scratch.path(&format!("shards/{i:04}.parquet")));
        std::fs::copy(from, to).unwrap();
    }
    bombs.refused("shards", &[], &[&["0001.parquet"], UNPACKS].concat());
}

/// Lists and rows that take more memory than their bytes.
#[test]
fn a_bomb_of_many_values_is_refused_before_it_takes_memory() {
    let bombs = Bombs::new();
    let bomb = |name: &str, make: &dyn Fn(&Path), parts: &[&str]| bombs.made(name, make, parts);
    // A cell that is cut into many labels.
    let mut cell = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
    let labels = "a;b;c;".repeat(1_500_000);
    cell.write_all(format!("text,label\ngood,{labels}a\nbad,{labels}a\n").as_bytes()).unwrap();
    bombs.scratch.write("cell.csv.gz", cell.finish().unwrap());
    let several = ["--set", "data.label_separator=;", "--set", "model.task_type=multi_label"];
    bombs.refused("cell.csv.gz", &several, UNPACKS);
    // A row with a list of many labels.
    bomb(
        "list.parquet",
        &|path| {
            let schema = "message rows { required binary text (UTF8); required group label (LIST) { repeated group list { required int32 element; } } }";
            let many = 8 << 20;
            let (levels, mut starts) = (vec![1; many], vec![1; many]);
            starts[0] = 0;
            write_parquet(path, schema, packed(), |i, column| match i {
                0 => drop(column.typed::<ByteArrayType>().write_batch(
                    &[ByteArray::from("a")],
                    None,
                    None,
                )),
                _ => drop(
                    column
                        .typed::<Int32Type>()
                        .write_batch(&vec![1; many], Some(&levels), Some(&starts))
                        .unwrap(),
                ),
            });
        },
        UNPACKS,
    );
    // More rows than bytes.
    bomb(
        "rows.parquet",
        &|path| {
            write_texts(path, packed(), &vec![ByteArray::from("a"); 2 << 20]);
        },
        UNPACKS,
    );
    for (name, codec) in [
        ("gzip.parquet", Compression::GZIP(GzipLevel::try_new(1).unwrap())),
        ("brotli.parquet", Compression::BROTLI(parquet::basic::BrotliLevel::try_new(1).unwrap())),
    ] {
        bomb(name, &|path| lying(path, codec), &["decompresses to more than its header says"]);
    }
}

#[test]
fn a_bomb_of_compressed_text_is_refused_before_it_takes_memory() {
    let bombs = Bombs::new();
    let bomb = |name: &str, make: &dyn Fn(&Path), parts: &[&str]| bombs.made(name, make, parts);
    // Compressed texts: much of nothing, many small rows, a value of many parts, many columns.
    let repeated = |pack: Pack, part: &str, times: usize| {
        // As parts that follow each other, so that they need not be packed one by one.
        let part = pack(part.repeat((1 << 20) / part.len()).as_bytes());
        part.repeat(times)
    };
    for (ending, pack) in PACKS {
        let make = |path: &Path| {
            std::fs::write(path, [pack(b"text,label\n"), repeated(pack, "a", 400)].concat())
                .unwrap();
        };
        bomb(&format!("zeros.csv.{ending}"), &make, UNPACKS);
    }
    let write = |path: &Path, head: &str, part: &str, times| {
        std::fs::write(path, [gzip(head.as_bytes()), repeated(gzip, part, times)].concat())
            .unwrap();
    };
    bomb("small.csv.gz", &|path| write(path, "text,label\n", "a,b\n", 100), UNPACKS);
    bomb("small.jsonl.gz", &|path| write(path, "", "{\"text\":\"\",\"label\":0}\n", 100), UNPACKS);
    bomb("array.json.gz", &|path| write(path, "[{}", ",{}", 100), &["no field"]);
    bomb(
        "list.jsonl.gz",
        &|path| write(path, "{\"text\":\"a\",\"label\":[0", ",0", 100),
        &["not JSON"],
    );
    bomb(
        "other.jsonl.gz",
        &|path| write(path, "{\"text\":\"a\",\"other\":[0", ",0", 100),
        &["not JSON"],
    );
    bomb(
        "columns.csv.gz",
        &|path| write(path, "text,label\n", ",", 100),
        &["more than 1048576 columns"],
    );
    bomb(
        "columns.tsv.gz",
        &|path| write(path, "text\tlabel\n", "\t", 100),
        &["columns, expected 2"],
    );
    bomb("header.tsv.gz", &|path| write(path, "", "\t", 100), &["more than 1048576 columns"]);
}

/// What is much, and of a size that lets expect it, is read.
#[test]
fn much_data_in_much_room_is_read() {
    let scratch = Scratch::new();
    let path = scratch.path("large.parquet");
    let texts: Vec<ByteArray> =
        (0..20_000).map(|i| ByteArray::from(&*format!("{i} ").repeat(300))).collect();
    write_texts(&path, packed(), &texts);
    assert_eq!(data::read(&path, &labelled()).unwrap().rows.len(), 20_000);
}

/// Standard input of a text a line is answered before its end, as today; a pipe that a shell made
/// is read like a file.
#[test]
fn lines_of_a_pipe_are_answered() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=2"]));
    let pipe: PathBuf = scratch.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let child = Command::new(env!("CARGO_BIN_EXE_bitfit"))
        .args(["predict", "--run", "run", "--input", "pipe"])
        .current_dir(scratch.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::fs::write(&pipe, "fine\nbad\n").unwrap();
    assert_eq!(stdout(&child.wait_with_output().unwrap()).lines().count(), 2);
}

#[test]
fn predictions_may_have_fewer_scores_and_no_text() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=1"]));
    let predict = ["predict", "--run", "run", "the film", "great acting"];
    let lines = |more: &[&str]| -> Vec<Value> {
        let output = scratch.bitfit(&[&predict, more].concat());
        succeeded(&output);
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (all, few) = (lines(&[]), lines(&["--no-text", "--top-k", "1"]));
    assert_eq!(all.len(), few.len());
    for (all, few) in all.iter().zip(&few) {
        let label = all["label"].as_str().unwrap();
        let expected =
            json!({"label": label, "score": all["score"], "scores": {label: all["score"]}});
        assert_eq!(few, &expected);
    }
    refused(&scratch.bitfit(&[&predict[..], &["--top-k", "0"]].concat()), 2, &["--top-k"]);
}

#[test]
fn rows_that_are_predicted_wrong_are_listed_the_surest_first() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=1"]));
    let eval = ["eval", "--run", "run", "--json", "--errors", "wrong.jsonl"];
    let output = scratch.bitfit(&eval);
    succeeded(&output);
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let rows = found["rows"].as_f64().unwrap();
    let wrong = (rows * (1.0 - found["metrics"]["accuracy"].as_f64().unwrap())).round() as usize;
    let lines = std::fs::read_to_string(scratch.path("wrong.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(wrong > 0 && lines.len() == wrong, "{wrong}: {lines:?}");
    let data = std::fs::read_to_string(scratch.path("eval.tsv")).unwrap();
    for line in &lines {
        let (file, number) = line["place"].as_str().unwrap().rsplit_once(':').unwrap();
        assert!(file.ends_with("eval.tsv"));
        let row = data.lines().nth(number.parse::<usize>().unwrap() - 1).unwrap();
        let (text, label) = (line["text"].as_str().unwrap(), line["label"].as_str().unwrap());
        assert_eq!(row, format!("{text}\t{label}"));
        assert_ne!(line["label"], line["predicted"]);
    }
    let scores: Vec<f64> = lines.iter().map(|line| line["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    let there = ["eval", "--run", "run", "--errors", "eval.tsv"];
    refused(&scratch.bitfit(&there), 2, &["--errors", "is there, and of what is read"]);
}
