//! Predictions as tables: the columns of the input as they stand, then those of the predictions.

use crate::common::{Scratch, golden_dir, refused, stdout, succeeded};
use crate::made;
use bitfit::internal::base::Base;
use bitfit::internal::data::{self, Columns, LabelColumns, Tokenizer};
use bitfit::internal::models::TaskType;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, FixedLenByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::Row;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tch::Device;

/// A folder with a base and tasks about one text in `tasks`: `film` with the labels no and yes,
/// `kind` with several of a, b;c and d, and `rate` with a number.
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    let base = Base::read(&scratch.path("base"), None, Device::Cpu).unwrap();
    let fingerprint = Tokenizer::read(&scratch.path("base")).unwrap().fingerprint;
    let kinds: [(&str, TaskType, &[&str]); 3] = [
        ("film", TaskType::Classification, &["no", "yes"]),
        ("kind", TaskType::MultiLabel, &["a", "b;c", "d"]),
        ("rate", TaskType::Regression, &[]),
    ];
    for (name, task_type, labels) in kinds {
        let mut delta = made::task(&base, &fingerprint, 2);
        let rows = labels.len().max(1) as i64;
        for name in ["classifier.weight", "classifier.bias"] {
            let cut = delta.tensors[name].narrow(0, 0, rows).copy();
            delta.tensors.insert(name.into(), cut);
        }
        let task = &mut delta.meta.task;
        (task.task_type, task.pairs, task.max_length) = (task_type, Some(false), 32);
        task.labels = labels.iter().map(|&label| label.to_owned()).collect();
        delta.write(&scratch.write(&format!("tasks/{name}.safetensors"), "")).unwrap();
    }
    scratch
}

fn args<'a>(task: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let delta = match task {
        "film" => "tasks/film.safetensors",
        "kind" => "tasks/kind.safetensors",
        _ => "tasks/rate.safetensors",
    };
    [&["predict", "--model", "base", "--delta", delta], more].concat()
}

const EACH: [&str; 5] = ["predict", "--model", "base", "--tasks", "tasks"];

/// What a command writes to `out`.
fn written(scratch: &Scratch, args: &[&str], out: &str) -> String {
    succeeded(&scratch.bitfit(&[args, &["--output", out]].concat()));
    std::fs::read_to_string(scratch.path(out)).unwrap()
}

/// The JSON lines of a command.
fn lines(scratch: &Scratch, args: &[&str]) -> Vec<Value> {
    let output = scratch.bitfit(args);
    succeeded(&output);
    stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn cells(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[test]
fn a_csv_keeps_its_columns_and_rows() {
    let scratch = scratch();
    let input =
        "id,text,note\n1,\"a very good\nfilm\",\"say \"\"hi\"\", all\"\n02,awful,=1+1\n3,great,\n";
    scratch.write("in.csv", input);
    let predict = args("film", &["--input", "in.csv"]);
    let said = lines(&scratch, &predict);
    let cell = |line: &Value| format!(",{},{}", line["label"].as_str().unwrap(), line["score"]);
    let [a, b, c] = [cell(&said[0]), cell(&said[1]), cell(&said[2])];
    let expected = format!(
        "id,text,note,label,score\n1,\"a very good\nfilm\",\"say \"\"hi\"\", all\"{a}\n02,awful,=1+1{b}\n3,great,{c}\n"
    );
    assert_eq!(written(&scratch, &predict, "out.csv"), expected);
    // The same of semicolons, and of a file for Excel.
    let semicolons = input.replace(',', ";").replace("\"\"; all", "\"\", all");
    scratch.write("in.csv", format!("\u{feff}sep=;\r\n{semicolons}"));
    assert_eq!(written(&scratch, &predict, "out.csv"), expected);
    // Without a header, columns have numbers.
    scratch.write("in.csv", "1,good\n2,bad\n");
    let by_number = args("film", &["--input", "in.csv", "--no-header", "--text-column", "2"]);
    let found = cells(&written(&scratch, &by_number, "out.csv"));
    assert_eq!(found[0], ["1", "2", "label", "score"]);
    assert_eq!(
        (&found[1][..2], &found[2][..2]),
        (&["1", "good"].map(str::to_owned)[..], &["2", "bad"].map(str::to_owned)[..])
    );
    // A line of one empty cell is a row.
    scratch.write("in.csv", "text\ngood\n");
    let alone = args("kind", &["--input", "in.csv", "--no-text", "--label-separator", "|"]);
    let found = written(&scratch, &alone, "out.csv");
    assert!(found == "labels\n\"\"\n" || cells(&found)[1].len() == 1, "{found}");
}

#[test]
fn a_tsv_has_no_quotes_and_no_tabs_in_cells() {
    let scratch = scratch();
    scratch.write("in.tsv", "text\tid\n\"good\tx\"\r\nbad\ty\n");
    let predict = args("film", &["--input", "in.tsv"]);
    let found = written(&scratch, &predict, "out.tsv");
    let rows: Vec<Vec<&str>> = found.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows[0], ["text", "id", "label", "score"]);
    assert_eq!((&rows[1][..2], &rows[2][..2]), (&["\"good", "x\""][..], &["bad", "y"][..]));
    assert_eq!(cells(&written(&scratch, &predict, "out.csv"))[1][..2], ["\"good", "x\""]);
    scratch.write("in.csv", "text,note\ngood,\nbad,\"a\nb\"\n");
    let predict = args("film", &["--input", "in.csv", "--output", "no.tsv"]);
    refused(&scratch.bitfit(&predict), 2, &["in.csv: row 2, column \"note\"", ".tsv", ".csv"]);
    assert!(!scratch.path("no.tsv").exists());
}

#[test]
fn the_fields_of_json_are_columns() {
    let scratch = scratch();
    let rows = [
        r#"{"id": 1.0, "text": "good", "tags": ["a", {"b": 1}]}"#,
        r#"{"text": "ba\u0064", "big": 12345678901234567890, "id": null, "ok": true}"#,
        r#"{"text": "great", "by": {"who":  "me"}, "id": "x,\"y\""}"#,
    ];
    scratch.write("in.jsonl", format!("{}\n\n{}\n{}\n", rows[0], rows[1], rows[2]));
    scratch.write("in.json", format!("[{},\n{} , {}]\n", rows[0], rows[1], rows[2]));
    for input in ["in.jsonl", "in.json"] {
        let found = cells(&written(&scratch, &args("film", &["--input", input]), "out.csv"));
        assert_eq!(found[0], ["id", "text", "tags", "big", "ok", "by", "label", "score"]);
        assert_eq!(found[1][..6], ["1.0", "good", r#"["a", {"b": 1}]"#, "", "", ""]);
        assert_eq!(found[2][..6], ["", "bad", "", "12345678901234567890", "true", ""]);
        assert_eq!(found[3][..6], ["x,\"y\"", "great", "", "", "", r#"{"who":  "me"}"#]);
    }
    // In Parquet a missing value is none.
    let more = ["--input", "in.jsonl", "--output", "out.parquet", "--no-text"];
    succeeded(&scratch.bitfit(&args("film", &more)));
    let found = rows_of(&scratch.path("out.parquet"));
    let first: Vec<String> =
        found[1].get_column_iter().map(|(_, value)| value.to_string()).collect();
    assert_eq!(first[..4], ["null", "null", "\"12345678901234567890\"", "\"true\""]);
    scratch.write("in.jsonl", "{\"text\": \"good\"}\n{\"text\": \"bad\", \"a\": 1, \"a\": 2}\n");
    let twice = scratch.bitfit(&args("film", &["--input", "in.jsonl", "--output", "no.csv"]));
    refused(&twice, 1, &["in.jsonl:2", "more than one field \"a\""]);
    assert!(!scratch.path("no.csv").exists());
}

fn rows_of(path: &Path) -> Vec<Row> {
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    reader.get_row_iter(None).unwrap().map(Result::unwrap).collect()
}

const SCHEMA: &str = "message rows { required int64 id; optional binary text (STRING); optional double x; \
    optional group tags (LIST) { repeated group list { optional binary element (STRING); } } \
    required int64 at (TIMESTAMP(NANOS,true)); }";

/// Writes two row groups of two rows, with the schema above.
fn write_groups(path: &Path) {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    for key in ["ARROW:schema", "huggingface"] {
        writer.append_key_value_metadata(KeyValue::new(key.into(), "x".to_owned()));
    }
    let texts =
        |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
    for ids in [[1, 2], [3, 1 << 60]] {
        let mut group = writer.next_row_group().unwrap();
        for i in 0..5 {
            let mut column = group.next_column().unwrap().unwrap();
            match i {
                0 => column.typed::<Int64Type>().write_batch(&ids, None, None),
                1 => column.typed::<ByteArrayType>().write_batch(
                    &texts(&["good", "bad"]),
                    Some(&[1, 1]),
                    None,
                ),
                2 => column.typed::<DoubleType>().write_batch(&[0.1], Some(&[1, 0]), None),
                3 => column.typed::<ByteArrayType>().write_batch(
                    &texts(&["a", "b"]),
                    Some(&[3, 3, 1]),
                    Some(&[0, 1, 0]),
                ),
                _ => column.typed::<Int64Type>().write_batch(
                    &[1_700_000_000_123_456_789, -1],
                    None,
                    None,
                ),
            }
            .unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn parquet_keeps_the_types_of_its_columns() {
    let scratch = scratch();
    write_groups(&scratch.path("in.parquet"));
    let predict = args("film", &["--input", "in.parquet"]);
    let said = lines(&scratch, &predict);
    succeeded(&scratch.bitfit(&[&predict[..], &["--output", "out.parquet"]].concat()));
    let open = |name: &str| {
        SerializedFileReader::new(std::fs::File::open(scratch.path(name)).unwrap()).unwrap()
    };
    let (before, after) = (open("in.parquet"), open("out.parquet"));
    let fields = |reader: &SerializedFileReader<_>| {
        reader.metadata().file_metadata().schema().get_fields().to_vec()
    };
    assert_eq!(fields(&after)[..5], fields(&before)[..]);
    assert_eq!(after.metadata().num_row_groups(), 2);
    let keys = after.metadata().file_metadata().key_value_metadata().unwrap();
    assert_eq!(keys.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["huggingface"]);
    let (before, after) =
        (rows_of(&scratch.path("in.parquet")), rows_of(&scratch.path("out.parquet")));
    assert_eq!((before.len(), after.len()), (4, 4));
    for ((before, after), said) in before.iter().zip(&after).zip(&said) {
        let values = |row: &Row| {
            row.get_column_iter()
                .map(|(name, value)| (name.clone(), value.to_string()))
                .collect::<Vec<_>>()
        };
        assert_eq!(values(after)[..5], values(before)[..]);
        assert_eq!(values(after)[5], ("label".into(), said["label"].to_string()));
        let score: f32 = values(after)[6].1.parse().unwrap();
        assert_eq!(score as f64, said["score"].as_f64().unwrap() as f32 as f64);
    }
    // As text.
    let found = cells(&written(&scratch, &predict, "out.csv"));
    assert_eq!(found[0], ["id", "text", "x", "tags", "at", "label", "score"]);
    assert_eq!(
        found[1][..5],
        ["1", "good", "0.1", "[\"a\",\"b\"]", "2023-11-14 22:13:20.123456789+00:00"]
    );
    assert_eq!(
        found[4][..5],
        ["1152921504606846976", "bad", "", "[]", "1969-12-31 23:59:59.999999999+00:00"]
    );
    // Files of a folder are one table.
    std::fs::create_dir(scratch.path("set")).unwrap();
    for i in 0..2 {
        let name = format!("set/train-0000{i}-of-00002.parquet");
        std::fs::copy(scratch.path("in.parquet"), scratch.path(&name)).unwrap();
    }
    let more = ["--input", "set", "--output", "all.parquet", "--no-text"];
    succeeded(&scratch.bitfit(&args("film", &more)));
    let all = rows_of(&scratch.path("all.parquet"));
    let names: Vec<&str> = all[7].get_column_iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((all.len(), names), (8, vec!["id", "x", "tags", "at", "label", "score"]));
}

/// Files that other programs wrote, and values that have no text.
#[test]
fn parquet_of_other_programs_is_copied() {
    let scratch = scratch();
    std::fs::copy(golden_dir().join("hub.parquet"), scratch.path("in.parquet")).unwrap();
    let more = ["--input", "in.parquet", "--prefix", "p_", "--output", "out.parquet"];
    succeeded(&scratch.bitfit(&args("film", &more)));
    let [before, after] = ["in.parquet", "out.parquet"].map(|name| rows_of(&scratch.path(name)));
    for (before, after) in before.iter().zip(&after) {
        let shown = |row: &Row| {
            row.get_column_iter().map(|(_, value)| value.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(shown(after)[..before.len()], shown(before)[..]);
    }
    assert_eq!(before.len(), after.len());
    let schema = "message rows { required binary text (STRING); required fixed_len_byte_array(16) key (UUID); }";
    let file = std::fs::File::create(scratch.path("uuid.parquet")).unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&["good".into()], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let key = ByteArray::from(vec![7; 16]).into();
    column.typed::<FixedLenByteArrayType>().write_batch(&[key], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let predict = args("film", &["--input", "uuid.parquet"]);
    let output = scratch.bitfit(&[&predict[..], &["--output", "no.csv"]].concat());
    refused(&output, 1, &["uuid.parquet", "column \"key\": found UUIDs", ".parquet"]);
    succeeded(&scratch.bitfit(&[&predict[..], &["--output", "uuids.parquet"]].concat()));
    assert_eq!(rows_of(&scratch.path("uuids.parquet")).len(), 1);
}

#[test]
fn a_column_that_is_there_already_is_refused() {
    let scratch = scratch();
    scratch.write("in.csv", "label,text\n1,good\n");
    let predict = args("film", &["--input", "in.csv", "--output", "no.csv"]);
    refused(&scratch.bitfit(&predict), 2, &["column \"label\"", "--prefix"]);
    let names: Vec<_> = std::fs::read_dir(scratch.path("")).unwrap().collect();
    let left = |name: &str| {
        names
            .iter()
            .any(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(name))
    };
    assert!(!left("no.csv"), "{names:?}");
    let prefixed = args("film", &["--input", "in.csv", "--prefix", "pred_"]);
    let found = cells(&written(&scratch, &prefixed, "out.csv"));
    assert_eq!(found[0], ["label", "text", "pred_label", "pred_score"]);
    // A text column that is left out is not there.
    scratch.write("in.csv", "label,id\ngood,1\n");
    let left_out = args("film", &["--input", "in.csv", "--text-column", "label", "--no-text"]);
    assert_eq!(cells(&written(&scratch, &left_out, "out.csv"))[0], ["id", "label", "score"]);
    scratch.write("in.csv", "text,a,a\ngood,1,2\n");
    let twice = args("film", &["--input", "in.csv"]);
    assert_eq!(cells(&written(&scratch, &twice, "out.csv"))[1][..3], ["good", "1", "2"]);
    let parquet = [&twice[..], &["--output", "no.parquet"]].concat();
    refused(&scratch.bitfit(&parquet), 2, &["more than one column \"a\"", ".csv"]);
    scratch.write("in.csv", "text,a,a,score\ngood,1,2,3\n");
    refused(&scratch.bitfit(&predict), 2, &["column \"score\"", "--prefix"]);
}

#[test]
fn scores_and_the_most_likely_labels_are_columns() {
    let scratch = scratch();
    let film = args("film", &["good", "awful"]);
    let said = lines(&scratch, &film);
    let found = cells(&written(
        &scratch,
        &[&film[..], &["--scores", "--prefix", "p_"]].concat(),
        "out.csv",
    ));
    assert_eq!(found[0], ["text", "p_label", "p_score", "p_score_no", "p_score_yes"]);
    for (row, said) in found[1..].iter().zip(&said) {
        let scores = &said["scores"];
        let cells = [
            said["text"].as_str().unwrap().to_owned(),
            said["label"].as_str().unwrap().to_owned(),
            said["score"].to_string(),
            scores["no"].to_string(),
            scores["yes"].to_string(),
        ];
        assert_eq!(row[..], cells);
    }
    // More labels than there are end with the last.
    let top = [&film[..], &["--scores", "--top-k", "9", "--no-text"]].concat();
    let found = cells(&written(&scratch, &top, "out.csv"));
    assert_eq!(found[0], ["label", "score", "label_1", "score_1", "label_2", "score_2"]);
    for row in &found[1..] {
        assert_eq!((&row[0], &row[1]), (&row[2], &row[3]));
        assert!(row[3].parse::<f32>().unwrap() >= row[5].parse::<f32>().unwrap());
        assert_ne!(row[2], row[4]);
    }
    let rate = args("rate", &["good"]);
    assert_eq!(cells(&written(&scratch, &rate, "out.csv"))[0], ["text", "score"]);
    let scores = [&rate[..], &["--scores", "--output", "no.csv"]].concat();
    refused(&scratch.bitfit(&scores), 2, &["--scores", "a number"]);
}

#[test]
fn several_labels_are_one_text_or_a_list() {
    let scratch = scratch();
    let texts = ["good", "awful", "a very good film", "great acting", "bad"];
    let kind = args("kind", &texts);
    let said = lines(&scratch, &kind);
    let all: usize = said.iter().map(|line| line["labels"].as_array().unwrap().len()).sum();
    assert!(all > 0, "no label to join");
    for more in [&["--output", "no.csv"][..], &["--output", "no.csv", "--label-separator", "c"]] {
        let output = scratch.bitfit(&[&kind[..], more].concat());
        refused(&output, 2, &["--label-separator", "label \"b;c\""]);
    }
    let bars = [&kind[..], &["--label-separator", "|"]].concat();
    let found = cells(&written(&scratch, &bars, "out.csv"));
    assert_eq!(found[0], ["text", "labels"]);
    succeeded(&scratch.bitfit(&[&kind[..], &["--output", "out.parquet", "--scores"]].concat()));
    let lists = rows_of(&scratch.path("out.parquet"));
    for ((row, said), list) in found[1..].iter().zip(&said).zip(&lists) {
        let labels: Vec<&str> = said["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|label| label.as_str().unwrap())
            .collect();
        assert_eq!(row[1], labels.join("|"));
        let shown: Vec<(&String, String)> =
            list.get_column_iter().map(|(name, value)| (name, value.to_string())).collect();
        assert_eq!(
            shown[1].1,
            format!(
                "[{}]",
                labels.iter().map(|label| format!("\"{label}\"")).collect::<Vec<_>>().join(", ")
            )
        );
        assert_eq!(shown[3].0, "score_b;c");
        assert_eq!(shown.len(), 5);
    }
}

#[test]
fn many_tasks_have_columns_of_their_own() {
    let scratch = scratch();
    scratch.write("in.csv", "id,text,task\n1,good,film\n2,bad,rate\n3,awful,kind\n");
    let bars = ["--input", "in.csv", "--label-separator", "|"];
    let each = [&EACH[..], &bars, &["--scores"]].concat();
    let found = cells(&written(&scratch, &each, "out.csv"));
    let expected = [
        "id",
        "text",
        "task",
        "film_label",
        "film_score",
        "film_score_no",
        "film_score_yes",
        "kind_labels",
        "kind_score_a",
        "kind_score_b;c",
        "kind_score_d",
        "rate_score",
    ];
    assert_eq!(found[0], expected);
    let said = lines(&scratch, &[&EACH[..], &["--input", "in.csv"]].concat());
    for (row, said) in found[1..].iter().zip(&said) {
        let by_name = &said["predictions"];
        assert_eq!(row[3], by_name["film"]["label"].as_str().unwrap());
        assert_eq!(row[6], by_name["film"]["scores"]["yes"].to_string());
        assert_eq!(row[10], by_name["kind"]["scores"]["d"].to_string());
        assert_eq!(row[11], by_name["rate"]["score"].to_string());
    }
    let of_row = [&EACH[..], &bars, &["--task-column", "task"]].concat();
    let said =
        lines(&scratch, &[&EACH[..], &["--input", "in.csv", "--task-column", "task"]].concat());
    let found = cells(&written(&scratch, &of_row, "out.csv"));
    assert_eq!(found[0], ["id", "text", "task", "label", "score"]);
    assert_eq!(found[1][3..], [said[0]["label"].as_str().unwrap(), &said[0]["score"].to_string()]);
    assert_eq!(found[2][3..], ["", &said[1]["score"].to_string()]);
    let labels: Vec<&str> =
        said[2]["labels"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    assert_eq!(found[3][3..], [&labels.join("|"), ""]);
    let scores = [&of_row[..], &["--scores", "--output", "no.csv"]].concat();
    refused(&scratch.bitfit(&scores), 2, &["--scores", "--task-column", "--top-k"]);
    let top = [&of_row[..], &["--top-k", "1"]].concat();
    assert_eq!(
        cells(&written(&scratch, &top, "out.csv"))[0][3..],
        ["label", "score", "label_1", "score_1"]
    );
}

#[test]
fn json_lines_are_as_before() {
    let scratch = scratch();
    scratch.write("in.csv", "id,text\n1,good\n2,\"b\u{e4}d \"\"x\"\"\"\n");
    let predict = args("film", &["--input", "in.csv"]);
    let said = lines(&scratch, &predict);
    let line = |text: &str, said: &Value| {
        let scores = &said["scores"];
        format!(
            "{{\"text\":{text:?},\"label\":{},\"score\":{},\"scores\":{{\"no\":{},\"yes\":{}}}}}\n",
            said["label"], said["score"], scores["no"], scores["yes"]
        )
    };
    let expected = line("good", &said[0]) + &line("b\u{e4}d \"x\"", &said[1]);
    for out in ["out", "out.txt", "out.jsonl", "out.json", "out.jsonl.gz"] {
        assert_eq!(written(&scratch, &predict, out), expected, "{out}");
    }
    for (flag, value) in
        [("--scores", None), ("--prefix", Some("p_")), ("--label-separator", Some("|"))]
    {
        let more: Vec<&str> = [flag].into_iter().chain(value).collect();
        refused(
            &scratch.bitfit(&[&predict[..], &more].concat()),
            2,
            &[flag, "JSON lines", ".parquet"],
        );
    }
    for out in ["x.csv.gz", "x.tsv.zst", "x.parquet.xz"] {
        let output = scratch.bitfit(&[&predict[..], &["--output", out]].concat());
        refused(&output, 2, &["--output", out, ".csv, .tsv or .parquet"]);
    }
}

/// Texts and other cells with all that means something in a table.
fn pieces() -> impl Strategy<Value = String> {
    "[ab,;\t\"\n\r {}\\[\\]:1\u{e4}]{0,12}"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// The rows that are found again are those that were read.
    #[test]
    fn rows_are_found_again(text in pieces(), rows in proptest::collection::vec((pieces(), pieces()), 0..4), kind in 0..8) {
        let folder = tempfile::tempdir().unwrap();
        let json: Vec<String> = rows.iter().map(|(a, b)| serde_json::json!({"x": a, "text": b}).to_string()).collect();
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let csv: String = rows.iter().map(|(a, b)| format!("{},{}\n", quoted(a), quoted(b))).collect();
        let raw: String = rows.iter().map(|(a, b)| format!("{a}\t{b}\r\n")).collect();
        let (name, contents, header) = match kind {
            0 => ("x.csv", format!("x,text\n{csv}{text}"), true),
            1 => ("x.csv", format!("x,text\r\n\n{text}\n{csv}"), true),
            2 => ("x.csv", format!("{text}\n{csv}"), false),
            3 => ("x.tsv", format!("x\ttext\n{raw}{text}"), true),
            4 => ("x.tsv", format!("{text}\n{raw}"), false),
            5 => ("x.tsv", format!("text\n{text}\n{text}"), true),
            6 => ("x.jsonl", json.join("\n \n"), true),
            _ => ("x.json", format!(" [{}\n]", json.join(" ,\n")), true),
        };
        let path = folder.path().join(name);
        std::fs::write(&path, &contents).unwrap();
        let columns = Columns {
            text: if header { "text".into() } else { "1".into() },
            text_pair: None,
            labels: LabelColumns::None,
            header,
            delimiter: name.ends_with(".csv").then_some(','),
            skip_bad_rows: false,
        };
        if let Ok((read, original)) = data::read_with_original(&path, &columns) {
            let mut original = original.unwrap();
            let column = (0..original.columns().len()).find(|&column| original.is_text(column)).unwrap();
            for _ in 0..2 {
                for row in &read.rows {
                    let cells = original.next_row().unwrap().unwrap();
                    prop_assert_eq!(cells[column].as_deref(), Some(row.text.as_str()));
                }
                prop_assert!(original.next_row().unwrap().is_none());
                original.rewind();
            }
        }
    }
}
