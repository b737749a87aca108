//! Rows, labels, tokens, order, batches.

use crate::common::{
    Scratch, golden_dir, refused, reviews, stderr, stdout, succeeded, write_parquet,
};
use bitfit::internal::data::{
    self, Batch, Columns, Encoding, LabelColumns, Labels, Row, Target, Tokenizer, draw,
    epoch_order, split_by_class,
};
use bitfit::internal::models::TaskType;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, FloatType,
    Int32Type, Int64Type,
};
use std::path::Path;

/// The rows alone.
fn read(path: &Path, columns: &Columns) -> bitfit::internal::error::Result<Vec<Row>> {
    Ok(data::read(path, columns)?.rows)
}

fn columns() -> Columns {
    let labels = LabelColumns::One { name: "label".into(), separator: None };
    Columns {
        text: "text".into(),
        text_pair: None,
        labels,
        header: true,
        delimiter: None,
        skip_bad_rows: false,
    }
}

fn texts(rows: &[Row]) -> Vec<(&str, &str)> {
    rows.iter()
        .map(|row| {
            (row.text.as_str(), row.labels().first().map_or("-", |label| label.name.as_str()))
        })
        .collect()
}

/// The labels of rows whose file says no names.
fn of(task: TaskType, path: &Path, rows: &[Row]) -> bitfit::internal::error::Result<Labels> {
    Labels::of(task, path, &data::Dataset { rows: rows.to_vec(), classes: None }, false)
}

/// The names of each row's labels.
fn names(rows: &[Row]) -> Vec<Vec<String>> {
    rows.iter().map(|row| row.labels().iter().map(|label| label.name.clone()).collect()).collect()
}

#[test]
fn every_format_gives_the_same_rows() {
    let scratch = Scratch::new();
    let expected = [("said \"yes\", twice", "a"), ("it's\u{2028}two words", "b")];
    let csv = scratch.write(
        "x.csv",
        "\u{feff}id,label,text\r\n1,a,\"said \"\"yes\"\", twice\"\r\n2,b,it's\u{2028}two words\r\n",
    );
    assert_eq!(texts(&read(&csv, &columns()).unwrap()), expected);
    // Quotes are letters in a TSV, and one that is not closed eats no rows.
    let tsv = scratch.write(
        "x.tsv",
        "\u{feff}text\tlabel\r\nsaid \"yes\", twice\ta\r\n\r\nit's\u{2028}two words\tb",
    );
    let rows = read(&tsv, &columns()).unwrap();
    assert_eq!(texts(&rows), expected);
    assert_eq!(rows[1].place.line, Some(4));
    let tsv = scratch.write("q.tsv", "text\tlabel\n\"open\ta\nnext\tb\n");
    assert_eq!(read(&tsv, &columns()).unwrap().len(), 2);
    // An empty line is a text where there is no other column.
    let texts_alone = Columns { labels: LabelColumns::None, ..columns() };
    let tsv = scratch.write("one.TSV", "text\na\n\nb\n");
    assert_eq!(read(&tsv, &texts_alone).unwrap().len(), 3);
    let jsonl = scratch.write("x.jsonl", "{\"text\": \"said \\\"yes\\\", twice\", \"label\": \"a\"}\n\n{\"label\": \"b\", \"text\": \"it's\u{2028}two words\"}\n");
    assert_eq!(texts(&read(&jsonl, &columns()).unwrap()), expected);
    scratch.write("folder/a/1.txt", expected[0].0);
    scratch.write("folder/b/1.txt", expected[1].0);
    scratch.write("folder/b/notes.md", "not a row");
    scratch.write("folder/README.txt", "not a row");
    scratch.write("folder/.git/1.txt", "not a row");
    assert_eq!(texts(&read(&scratch.path("folder"), &columns()).unwrap()), expected);
    // Of aclImdb, the unlabelled reviews are no class; of any folder, those that are asked for.
    for name in ["imdb/neg/0_1.txt", "imdb/pos/0_9.txt", "imdb/unsup/0_0.txt", "imdb/odd/0.txt"] {
        scratch.write(name, "text");
    }
    let labels = |columns: &Columns| -> Vec<String> {
        read(&scratch.path("imdb"), columns)
            .unwrap()
            .into_iter()
            .flat_map(|row| row.labels.unwrap())
            .map(|label| label.name)
            .collect()
    };
    assert_eq!(labels(&columns()), ["neg", "odd", "pos"]);
}

#[test]
fn what_is_wrong_is_named_with_file_and_line() {
    let scratch = Scratch::new();
    let refuse = |name: &str, bytes: &[u8], parts: &[&str]| {
        let error = read(&scratch.write(name, bytes), &columns()).unwrap_err().to_string();
        for part in parts.iter().chain([&name]) {
            assert!(error.contains(part), "expected {part:?} in: {error}");
        }
    };
    refuse("few.tsv", b"text\tlabel\nfine\ta\nshort\n", &["few.tsv:3", "1 columns, expected 2"]);
    refuse("few.csv", b"text,label\nfine,a\nshort\n", &["few.csv:3", "1 columns, expected 2"]);
    refuse("many.csv", b"text,label\na,b,c\n", &["many.csv:2", "3 columns, expected 2"]);
    refuse(
        "column.csv",
        b"sentence,label\na,b\n",
        &["column.csv:1", "\"text\"", "text_column", "sentence, label"],
    );
    refuse("column.tsv", b"text\tclass\na\tb\n", &["\"label\"", "label_column", "text, class"]);
    refuse("latin.tsv", b"text\tlabel\nfine\ta\nna\xefve\tb\n", &["latin.tsv:3", "not UTF-8"]);
    refuse("latin.csv", b"text,label\nfine,a\nna\xefve,b\n", &["latin.csv:3", "not UTF-8"]);
    refuse("latin.jsonl", b"{\"text\": \"na\xefve\"}\n", &["latin.jsonl:1", "not UTF-8"]);
    refuse(
        "broken.jsonl",
        b"{\"text\": \"a\", \"label\": 1}\n{\n",
        &["broken.jsonl:2", "not JSON"],
    );
    refuse("array.jsonl", b"[1]\n", &["array.jsonl:1", "not a JSON object"]);
    refuse(
        "field.jsonl",
        b"{\"text\": \"a\", \"class\": 1}\n",
        &["field.jsonl:1", "\"label\"", "text, class"],
    );
    refuse(
        "type.jsonl",
        b"{\"text\": [\"a\"], \"label\": 1}\n",
        &["type.jsonl:1", "\"text\"", "expected a text"],
    );
    refuse("label.tsv", b"text\tlabel\nfine\ta\nnone\t \n", &["label.tsv:3", "no label"]);
    refuse("label.csv", b"text,label\nfine,\n", &["label.csv:2", "no label"]);
    refuse("label.jsonl", b"{\"text\": \"a\", \"label\": \"\"}\n", &["label.jsonl:1", "no label"]);
    refuse(
        "twice.csv",
        b"text,label,text\na,b,c\n",
        &["twice.csv:1", "more than one column", "text"],
    );
    for name in ["empty.csv", "empty.tsv"] {
        refuse(name, b"", &["\"text\""]);
    }
    for (name, header) in
        [("none.csv", "text,label\n"), ("none.tsv", "text\tlabel\n"), ("none.jsonl", "\n")]
    {
        refuse(name, header.as_bytes(), &["no rows"]);
    }
    refuse("data.xlsx", b"", &[".csv, .tsv, .jsonl"]);
    std::fs::create_dir(scratch.path("void")).unwrap();
    let error = read(&scratch.path("void"), &columns()).unwrap_err().to_string();
    assert!(error.contains("folder for each class"), "{error}");
    let error = read(&scratch.path("nowhere.csv"), &columns()).unwrap_err().to_string();
    assert!(error.contains("nowhere.csv") && error.contains("No such file"), "{error}");
}

/// GLUE's tables: no quoting, sometimes a byte order mark, sometimes no header, sometimes no end of
/// the last line.
#[test]
fn glues_own_layout_is_read_whole() {
    let scratch = Scratch::new();
    // A quote that opens a field and closes lines later, as in MRPC and STS-B: a reader that minds
    // quotes makes one row of three.
    let mrpc = "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\t\"He said so .\tHe said it .\r\n0\t9\t10\tShe left .\tShe \"\"stayed .\r\n1\t11\t12\t\"Gone\" , they say .\tThey say \"gone\r\n";
    let path = scratch.write("MRPC/train.tsv", mrpc);
    let of = |text: &str, pair: Option<&str>, label: &str| Columns {
        text: text.into(),
        text_pair: pair.map(str::to_owned),
        labels: LabelColumns::One { name: label.into(), separator: None },
        ..columns()
    };
    let rows = read(&path, &of("#1 String", Some("#2 String"), "Quality")).unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0].text, "\"He said so .");
    assert_eq!(rows[1].text_pair.as_deref(), Some("She \"\"stayed ."));
    assert_eq!(names(&rows).concat(), ["1", "0", "1"]);
    let minding_quotes = csv::ReaderBuilder::new().delimiter(b'\t').flexible(true).from_path(&path);
    assert!(minding_quotes.unwrap().into_records().count() < 3, "it would lose rows");
    // CoLA: no header, and no end of the last line.
    let path = scratch.write(
        "CoLA/dev.tsv",
        "gj04\t1\t\tThe sailors rode the \"breeze.\ngj04\t0\t*\tThey drank the pub",
    );
    let cola = Columns { header: false, ..of("4", None, "2") };
    let rows = read(&path, &cola).unwrap();
    assert_eq!(
        texts(&rows),
        [("The sailors rode the \"breeze.", "1"), ("They drank the pub", "0")]
    );
    assert_eq!(rows[1].place.line, Some(2));
    let wrong = |columns: &Columns| read(&path, columns).unwrap_err().to_string();
    let error = wrong(&Columns { header: false, ..columns() });
    assert!(error.contains("text_column") && error.contains("a column number"), "{error}");
    let error = wrong(&Columns { header: false, ..of("5", None, "2") });
    assert!(
        error.contains("dev.tsv:1") && error.contains("no column 5; there are 4 columns"),
        "{error}"
    );
    // A quote that is not closed eats rows: that is said, whatever is to be skipped. And lines are
    // counted right.
    let path = scratch.write("quote.csv", "text,label\nc,x\n\"b,y\nd,x\ne,y\n");
    let error = read(&path, &Columns { skip_bad_rows: true, ..columns() }).unwrap_err().to_string();
    assert!(error.contains("quote.csv:3: a quote opens a cell here"), "{error}");
    let path = scratch.write("quote.csv", "text,label\nc,x\n\"b,y\nd,x\ne\",y,z\n");
    let error = read(&path, &Columns { skip_bad_rows: true, ..columns() }).unwrap_err().to_string();
    assert!(error.contains("lines 3 to 5") && error.contains("is a quote not closed?"), "{error}");
    let path = scratch.write("crlf.csv", "text,label\r\nc,x\r\n\"a\nb\",y\r\nd,x\r\nz,q,r\r\n");
    let error = read(&path, &columns()).unwrap_err().to_string();
    assert!(error.contains("crlf.csv:6: 3 columns"), "{error}");
    // QQP has broken lines; they are left out only where that is asked for.
    let path =
        scratch.write("QQP/train.tsv", "question1\tquestion2\tis_duplicate\na\tb\t1\nc\nd\te\t0\n");
    let qqp = of("question1", Some("question2"), "is_duplicate");
    let error = read(&path, &qqp).unwrap_err().to_string();
    assert!(error.contains("train.tsv:3") && error.contains("1 columns, expected 3"), "{error}");
    assert_eq!(read(&path, &Columns { skip_bad_rows: true, ..qqp.clone() }).unwrap().len(), 2);
    // A column that is not there is no bad row.
    let qqp = Columns { text_pair: Some("question3".into()), skip_bad_rows: true, ..qqp };
    let error = read(&path, &qqp).unwrap_err().to_string();
    assert!(error.contains("no column \"question3\" (text_pair_column)"), "{error}");
}

#[test]
fn parquet_is_read_with_the_names_of_its_classes() {
    let path = golden_dir().join("hub.parquet");
    let expected = [
        ("very good", "pos"),
        ("awful \u{2603} plot", "neg"),
        ("great", "pos"),
        ("hated it", "neg"),
    ];
    let rows = read(&path, &columns()).unwrap();
    assert_eq!(texts(&rows), expected);
    assert_eq!(rows[1].place.line, Some(2));
    let one = |name: &str| Columns {
        labels: LabelColumns::One { name: name.into(), separator: None },
        ..columns()
    };
    // In the order of the file, which is not that of the names; and numbers where names are not
    // asked for.
    let table = data::read(&path, &one("topics")).unwrap();
    let topics = Labels::of(TaskType::MultiLabel, &path, &table, false).unwrap();
    assert_eq!(
        (topics.names, topics.declared),
        (["sport", "science", "arts"].map(String::from).into(), true)
    );
    let numbers = Labels::default().targets(TaskType::Regression, &rows).unwrap();
    assert_eq!(numbers, [1.0, 0.0, 1.0, 0.0].map(Target::Number));
    // The file's number is the class only where the task's names say no more than a number.
    let class = |names: [&str; 2]| {
        let labels = Labels { names: names.map(String::from).into(), declared: true };
        labels.targets(TaskType::Classification, &rows)
    };
    let expected = [1, 0, 1, 0].map(Target::Class);
    assert_eq!(class(["LABEL_0", "LABEL_1"]).unwrap(), expected);
    assert_eq!(class(["0", "1"]).unwrap(), expected);
    assert_eq!(class(["Neg", "Pos"]).unwrap(), expected);
    assert_eq!(class(["POS", "NEG"]).unwrap(), [0, 1, 0, 1].map(Target::Class));
    let error = class(["bad", "good"]).unwrap_err().to_string();
    for part in ["hub.parquet:1", "label 1 (\"pos\")", "one of bad, good", "this data are neg, pos"]
    {
        assert!(error.contains(part), "{error}");
    }
    let three = Labels { names: ["x", "y"].map(String::from).into(), declared: true };
    let error = three.targets(TaskType::MultiLabel, &table.rows).unwrap_err().to_string();
    let parts = ["hub.parquet:1: label 0 (\"sport\")", "one of x, y (", "arts, science, sport"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    let labels = |name| -> Vec<Vec<String>> { names(&read(&path, &one(name)).unwrap()) };
    assert_eq!(labels("topics"), [vec!["sport", "arts"], vec![], vec!["science"], vec!["arts"]]);
    assert_eq!(labels("score").concat(), ["4.5", "0.1", "3", "1.25"]);
}

#[test]
fn parquet_without_the_columns_or_not_whole_is_refused() {
    let path = golden_dir().join("hub.parquet");
    let one = |name: &str| Columns {
        labels: LabelColumns::One { name: name.into(), separator: None },
        ..columns()
    };
    let error = |columns: &Columns| read(&path, columns).unwrap_err().to_string();
    let missing = error(&one("class"));
    assert!(
        missing.contains("no column \"class\" (label_column); the schema has text, label, topics"),
        "{missing}"
    );
    let group = error(&one("ratings"));
    assert!(group.contains("found a group, expected a label"), "{group}");
    let list = error(&Columns { text: "topics".into(), ..columns() });
    assert!(list.contains("hub.parquet:1") && list.contains("expected a text"), "{list}");
    // Not whole, or not Parquet at all.
    let bytes = std::fs::read(&path).unwrap();
    let scratch = Scratch::new();
    for (cut, name) in
        [(0, "empty"), (3, "short"), (bytes.len() / 2, "half"), (bytes.len() - 1, "cut")]
    {
        let path = scratch.write(&format!("{name}.parquet"), &bytes[..cut]);
        let error = read(&path, &columns()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("not a complete Parquet file"), "{error}");
    }
    let text = scratch.write("text.parquet", "text\tlabel\na\tb\n");
    assert!(read(&text, &columns()).is_err());
}

/// Damaged anywhere: rows, or an error that names the file; the library's own panics, of which
/// there are some, are errors too.
#[test]
fn a_damaged_parquet_file_is_an_error() {
    let bytes = std::fs::read(golden_dir().join("hub.parquet")).unwrap();
    let scratch = Scratch::new();
    let labels = LabelColumns::One { name: "topics".into(), separator: None };
    let columns = Columns { labels, ..columns() };
    // Panics of this thread that reach the hook of before.
    let printed = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (counter, thread) = (printed.clone(), std::thread::current().id());
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |about| match std::thread::current().id() == thread {
        true => drop(counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
        false => before(about),
    }));
    let count = || printed.load(std::sync::atomic::Ordering::Relaxed);
    let (mut errors, mut panics, mut example) = (vec![], 0, vec![]);
    for bit in 0..8 * bytes.len() {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let path = scratch.write("damaged.parquet", &damaged);
        let Err(error) = read(&path, &columns) else { continue };
        errors.push(error.to_string());
        if errors.last().unwrap().ends_with("it is damaged") {
            (panics, example) = (panics + 1, damaged);
        }
    }
    assert!(errors.iter().all(|error| error.contains("damaged.parquet")));
    println!("{} of {} refused, {panics} of them after a panic", errors.len(), 8 * bytes.len());
    assert!(panics > 0 && errors.len() > 1000);
    // The library leaves the process's hook alone, unless a program asks for silence.
    assert_eq!(count(), panics);
    data::silence_parquet_panics();
    let path = scratch.write("train.parquet", &example);
    assert!(read(&path, &columns).unwrap_err().to_string().ends_with("it is damaged"));
    assert_eq!(count(), panics);
    let set = ["--set", "data.train=train.parquet", "--set", "data.label_column=topics"];
    let output = scratch.train(&[&set[..], &["--set", "model.task_type=multi_label"]].concat());
    refused(&output, 1, &["train.parquet", "it is damaged"]);
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}

/// Ten thousand columns of labels: nothing may look for each column in each row among all the
/// others.
#[test]
fn many_columns_of_labels_are_read_in_time() {
    let scratch = Scratch::new();
    let names: Vec<String> = (0..10_000).map(|i| format!("label number {i}")).collect();
    let columns = Columns { labels: LabelColumns::Each(names.clone()), ..columns() };
    let mut object = serde_json::Map::from_iter([("text".into(), "a".into())]);
    object.extend(names.iter().rev().map(|name| (name.clone(), 0.into())));
    object.insert(names[7].clone(), 1.into());
    let line = serde_json::Value::from(object).to_string() + "\n";
    let path = scratch.write("many.jsonl", line.repeat(100));
    let start = std::time::Instant::now();
    let rows = read(&path, &columns).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!("100 rows of 10,000 columns: {seconds:.2} s");
    assert_eq!(rows.iter().map(|row| row.labels().len()).sum::<usize>(), 100);
    assert_eq!(rows[99].labels()[0].name, names[7]);
    assert!(seconds < 5.0, "{seconds} s");
}

#[test]
fn several_labels_come_from_a_list_a_separator_or_columns() {
    let scratch = Scratch::new();
    let labels = |name: &str, text: &str, labels: LabelColumns| -> Vec<Vec<String>> {
        let rows = read(&scratch.write(name, text), &Columns { labels, ..columns() }).unwrap();
        names(&rows)
    };
    let one = |separator: Option<&str>| LabelColumns::One {
        name: "label".into(),
        separator: separator.map(str::to_owned),
    };
    let expected = [vec!["x", "y"], vec![], vec!["y"]];
    assert_eq!(labels("a.tsv", "text\tlabel\na\tx| y\nb\t\nc\ty\n", one(Some("|"))), expected);
    let jsonl = "{\"text\":\"a\",\"label\":[\"x\",\"y\"]}\n{\"text\":\"b\",\"label\":[]}\n{\"text\":\"c\",\"label\":\"y\"}\n";
    assert_eq!(labels("a.jsonl", jsonl, one(None)), expected);
    let each = || LabelColumns::Each(["x", "y"].map(String::from).into());
    assert_eq!(labels("a.csv", "text,y,x\na,1,1\nb,0,0\nc,1.0,false\n", each()), expected);
    // A folder has one label for each text.
    scratch.write("folder/x, y/1.txt", "a");
    let error = read(&scratch.path("folder"), &Columns { labels: one(Some(",")), ..columns() });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("folder: label_separator: a folder of class folders"), "{error}");
    let path = scratch.write("b.csv", "text,y,x\na,1,2\n");
    let error = read(&path, &Columns { labels: each(), ..columns() }).unwrap_err().to_string();
    assert!(
        error.contains("b.csv:2")
            && error.contains("column \"x\" (label_columns)")
            && error.contains("0 or 1"),
        "{error}"
    );
}

#[test]
fn targets_are_what_the_task_wants() {
    let scratch = Scratch::new();
    let path = scratch.path("x.jsonl");
    let rows = |labels: &[&str]| {
        let line = |label: &&str| format!("{{\"text\": \"t\", \"label\": {label}}}\n");
        read(&scratch.write("x.jsonl", labels.iter().map(line).collect::<String>()), &columns())
            .unwrap()
    };
    let (several, number) = (TaskType::MultiLabel, TaskType::Regression);
    let many = rows(&["[\"b\", \"a\"]", "[]", "\"a\""]);
    let labels = of(several, &path, &many).unwrap();
    assert_eq!(labels.names, ["a", "b"]);
    let has = |has: &[u32]| Target::Labels { present: has.to_vec(), num_labels: 2 };
    assert_eq!(labels.targets(several, &many).unwrap(), [has(&[0, 1]), has(&[]), has(&[0])]);
    let error = labels.targets(TaskType::Classification, &many).unwrap_err().to_string();
    assert!(
        error.contains("x.jsonl:1: found 2 labels, expected one") && error.contains("multi_label"),
        "{error}"
    );
    let numbers = rows(&["4.25", "\"-1e2\""]);
    assert_eq!(of(number, &path, &numbers).unwrap().names, Vec::<String>::new());
    assert_eq!(
        Labels::default().targets(number, &numbers).unwrap(),
        [Target::Number(4.25), Target::Number(-100.0)]
    );
    for wrong in ["\"good\"", "\"nan\"", "\"inf\"", "\"1e99\"", "\"4,5\""] {
        let error =
            Labels::default().targets(number, &rows(&["1", wrong])).unwrap_err().to_string();
        assert!(
            error.contains("x.jsonl:2")
                && error.contains("expected a number")
                && error.contains("regression"),
            "{error}"
        );
    }
}

#[test]
fn labels_go_by_name_or_number() {
    let scratch = Scratch::new();
    let rows = |text: &str| {
        read(&scratch.write("x.tsv", format!("text\tlabel\n{text}")), &columns()).unwrap()
    };
    let from = |text: &str| {
        of(TaskType::Classification, &scratch.path("x.tsv"), &rows(text)).map(|labels| labels.names)
    };
    assert_eq!(from("a\tpos\nb\tneg\n").unwrap(), ["neg", "pos"]);
    assert_eq!(
        from("a\t10\nb\t9\nc\t2\n").unwrap(),
        ["2", "9", "10"],
        "numbers are sorted as numbers"
    );
    let error = from("a\tpos\nb\tpos\n").unwrap_err().to_string();
    assert!(error.contains("one class only") && error.contains("pos"), "{error}");
    let labels = Labels { names: ["neg", "pos"].map(String::from).into(), declared: true };
    let targets =
        |labels: &Labels, text: &str| labels.targets(TaskType::Classification, &rows(text));
    let [one, zero] = [1, 0].map(Target::Class);
    assert_eq!(targets(&labels, "a\tpos\nb\tneg\n").unwrap(), [one.clone(), zero.clone()]);
    assert_eq!(targets(&labels, "a\t1\nb\t0.0\n").unwrap(), [one, zero]);
    for wrong in ["2", "-1", "0.5", "positive"] {
        let error = targets(&labels, &format!("a\t1\nb\t{wrong}\n")).unwrap_err().to_string();
        assert!(
            error.contains("x.tsv:3") && error.contains("neg, pos") && error.contains("0 to 1"),
            "{error}"
        );
    }
    // Beside names a number is a mistake.
    let error = targets(&labels, "a\tpos\nb\t0\n").unwrap_err().to_string();
    assert!(error.contains("x.tsv:3: label \"0\": expected one of neg, pos ("), "{error}");
    // Where nobody said which name has which number, a number says nothing.
    let sorted = Labels { declared: false, ..labels };
    let error = targets(&sorted, "a\tpos\nb\t0\n").unwrap_err().to_string();
    assert!(error.contains("x.tsv:3") && error.contains("expected one of neg, pos ("), "{error}");
    // Where names are numbers, a label is a name and nothing else; and it stays as it is written.
    assert_eq!(from("a\t3\nb\t01\nc\t02\n").unwrap(), ["01", "02", "3"]);
    let labels = Labels { names: ["1", "2"].map(String::from).into(), declared: true };
    let error = targets(&labels, "a\t1\nb\t0\n").unwrap_err().to_string();
    assert!(error.contains("x.tsv:3") && error.contains("expected one of 1, 2 ("), "{error}");
}

/// The labels of two rows in Parquet, or the error.
fn labels<T: DataType>(scratch: &Scratch, field: &str, values: [T::T; 2]) -> String {
    let path = scratch.path("x.parquet");
    write_parquet::<T>(&path, &["a", "b"], &format!("REQUIRED {field};"), &values, None, None);
    match read(&path, &columns()) {
        Ok(rows) => names(&rows).concat().join(" "),
        Err(error) => error.to_string().replace(&path.display().to_string(), "file"),
    }
}

/// A label of Parquet is what it is in other formats, whatever its type.
#[test]
fn a_label_of_every_parquet_type_is_a_name() {
    let scratch = Scratch::new();
    let bytes = |bytes: &[u8]| ByteArray::from(bytes.to_vec());
    for field in ["INT32 label (INTEGER(8,true))", "INT32 label (INTEGER(16,false))", "INT32 label"]
    {
        assert_eq!(labels::<Int32Type>(&scratch, field, [1, 0]), "1 0", "{field}");
    }
    for field in ["INT64 label", "INT64 label (INTEGER(64,false))"] {
        assert_eq!(labels::<Int64Type>(&scratch, field, [1, 0]), "1 0", "{field}");
    }
    assert_eq!(labels::<FloatType>(&scratch, "FLOAT label", [1.0, -0.0]), "1 0");
    assert_eq!(labels::<DoubleType>(&scratch, "DOUBLE label", [0.1, 3.0]), "0.1 3");
    assert_eq!(labels::<BoolType>(&scratch, "BOOLEAN label", [true, false]), "true false");
    let text = [bytes(b"x"), bytes(b" y ")];
    for field in ["BYTE_ARRAY label (UTF8)", "BYTE_ARRAY label"] {
        assert_eq!(labels::<ByteArrayType>(&scratch, field, text.clone()), "x y", "{field}");
    }
    let decimal = labels::<Int32Type>(&scratch, "INT32 label (DECIMAL(4,2))", [150, 200]);
    assert_eq!(decimal, "1.50 2");
    assert_eq!(labels::<Int32Type>(&scratch, "INT32 label (DECIMAL(4,0))", [1, 20]), "1 20");
}

#[test]
fn a_value_of_parquet_that_cannot_be_a_label_is_an_error() {
    let scratch = Scratch::new();
    let bytes = |bytes: &[u8]| ByteArray::from(bytes.to_vec());
    // Annotations that older readers do not know.
    let uuid = || bytes(b"0123456789abcdef").into();
    for (found, part) in [
        (
            labels::<Int64Type>(&scratch, "INT64 label (TIMESTAMP(NANOS,true))", [1, 2]),
            "found dates with a time",
        ),
        (labels::<Int64Type>(&scratch, "INT64 label (TIME(NANOS,true))", [1, 2]), "found times"),
        (
            labels::<FixedLenByteArrayType>(
                &scratch,
                "FIXED_LEN_BYTE_ARRAY(16) label (UUID)",
                [uuid(), uuid()],
            ),
            "found UUIDs",
        ),
    ] {
        let part = format!("file: column \"label\" (label_column): {part}, expected a label");
        assert!(found.contains(&part), "{found}");
    }
    let as_text = Columns { text: "label".into(), labels: LabelColumns::None, ..columns() };
    let error = read(&scratch.path("x.parquet"), &as_text).unwrap_err().to_string();
    assert!(error.contains("(text_column): found UUIDs, expected a text"), "{error}");
    for (found, part) in [
        (labels::<DoubleType>(&scratch, "DOUBLE label", [1.0, f64::NAN]), "file:2: no label"),
        (labels::<Int32Type>(&scratch, "INT32 label (DATE)", [1, 2]), "file:1: column \"label\""),
        (
            labels::<Int64Type>(&scratch, "INT64 label (TIMESTAMP(MILLIS,true))", [1, 2]),
            "expected a label",
        ),
        (
            labels::<ByteArrayType>(&scratch, "BYTE_ARRAY label", [bytes(b"x"), bytes(b"\xff")]),
            "file:2: column \"label\" (label_column)",
        ),
    ] {
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn a_class_number_that_the_file_has_no_name_for_is_an_error() {
    let scratch = Scratch::new();
    let path = scratch.path("x.parquet");
    let refuse = |classes: [i64; 2], names: [&str; 2], part: &str| {
        let field = "REQUIRED INT64 label;";
        write_parquet::<Int64Type>(&path, &["a", "b"], field, &classes, None, Some(&names));
        let error = read(&path, &columns()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refuse([0, -1], ["x", "y"], "x.parquet:2: no label (-1)");
    refuse([0, 2], ["x", "y"], "x.parquet:2: label \"2\": expected a class number from 0 to 1,");
    refuse([0, 1], ["x", "x"], "one name for several classes");
}

/// Files of one row per list of 0 and 1: JSONL, a CSV with a separator, and Parquet of whole
/// numbers, of fractions and of truth values.
fn files_of_lists(scratch: &Scratch, lists: &[&[u8]]) -> Vec<(std::path::PathBuf, Columns)> {
    let text = |list: &[u8], between: &str| {
        list.iter().map(u8::to_string).collect::<Vec<_>>().join(between)
    };
    let jsonl: String = lists
        .iter()
        .map(|list| format!("{{\"text\": \"a\", \"label\": [{}]}}\n", text(list, ", ")))
        .collect();
    let csv: String = lists.iter().map(|list| format!("a,{}\n", text(list, ";"))).collect();
    let labels = LabelColumns::One { name: "label".into(), separator: Some(";".into()) };
    let mut files = vec![
        (scratch.write("lists.jsonl", jsonl), columns()),
        (scratch.write("lists.csv", format!("text,label\n{csv}")), Columns { labels, ..columns() }),
    ];
    let values: Vec<u8> = lists.concat();
    let (mut definition, mut repetition) = (vec![], vec![]);
    for list in lists {
        definition.extend(vec![if list.is_empty() { 1 } else { 2 }; list.len().max(1)]);
        repetition.extend((0..list.len().max(1)).map(|i| i16::from(i > 0)));
    }
    let field = |kind: &str| {
        format!(
            "OPTIONAL group label (LIST) {{ REPEATED group list {{ REQUIRED {kind} element; }} }}"
        )
    };
    fn write<T: DataType>(path: &Path, field: &str, values: Vec<T::T>, levels: (&[i16], &[i16])) {
        let texts = vec!["a"; levels.1.iter().filter(|&&level| level == 0).count()];
        write_parquet::<T>(path, &texts, field, &values, Some(levels), None);
    }
    let levels = (&definition[..], &repetition[..]);
    let path = |name: &str| scratch.path(&format!("{name}.parquet"));
    let whole = values.iter().map(|&value| i64::from(value)).collect();
    write::<Int64Type>(&path("whole"), &field("INT64"), whole, levels);
    let fractions = values.iter().map(|&value| f32::from(value)).collect();
    write::<FloatType>(&path("float"), &field("FLOAT"), fractions, levels);
    let mut names = vec!["whole", "float"];
    if values.iter().all(|&value| value < 2) {
        let flags = values.iter().map(|&value| value == 1).collect();
        write::<BoolType>(&path("bool"), &field("BOOLEAN"), flags, levels);
        names.push("bool");
    }
    files.extend(names.into_iter().map(|name| (path(name), columns())));
    files
}

/// 0 or 1 for each label, as Python's trainers take several labels: labels as the lists say, never
/// two labels called 0 and 1.
#[test]
fn a_list_of_0_and_1_says_which_labels_a_row_has() {
    let scratch = Scratch::new();
    let task = TaskType::MultiLabel;
    let three = Labels { names: ["a", "b", "c"].map(String::from).into(), declared: true };
    let has = |has: &[u32]| Target::Labels { present: has.to_vec(), num_labels: 3 };
    for (path, columns) in files_of_lists(&scratch, &[&[1, 0, 1], &[0, 0, 0], &[1, 1, 1]]) {
        let rows = read(&path, &columns).unwrap();
        let expected = [has(&[0, 2]), has(&[]), has(&[0, 1, 2])];
        assert_eq!(three.targets(task, &rows).unwrap(), expected, "{}", path.display());
        let numbers = Labels { names: ["0", "1", "2"].map(String::from).into(), declared: true };
        assert_eq!(numbers.targets(task, &rows).unwrap(), expected, "{}", path.display());
        let error = of(task, &path, &rows).unwrap_err().to_string();
        for part in ["does not name its labels", "model.label_names", "data.label_columns"] {
            assert!(error.contains(part), "{error}");
        }
        let error = of(TaskType::Classification, &path, &rows).unwrap_err().to_string();
        assert!(
            error.contains("found 3 labels, expected one; for several labels, set model.task_type"),
            "{error}"
        );
        let two = Labels { names: ["a", "b"].map(String::from).into(), declared: true };
        let error = two.targets(task, &rows).unwrap_err().to_string();
        assert!(
            error.contains("a list of 3 numbers, expected 0 or 1 for each of the 2"),
            "{error}"
        );
    }
    let read_as = |lists: &[&[u8]]| -> Vec<Result<Vec<Target>, String>> {
        let read_as = |(path, columns): (std::path::PathBuf, Columns)| {
            let rows = read(&path, &columns).unwrap();
            three.targets(task, &rows).map_err(|error| error.to_string())
        };
        files_of_lists(&scratch, lists).into_iter().map(read_as).collect()
    };
    // One of the wrong length beside others, of no length too.
    for lists in [&[&[1, 0, 1][..], &[0, 1]], &[&[1, 0, 1][..], &[]]] {
        for found in read_as(lists) {
            assert!(
                found.unwrap_err().contains("expected 0 or 1 for each of the 3 labels a, b, c")
            );
        }
    }
    for found in read_as(&[&[1], &[0], &[0, 1]]) {
        assert!(found.unwrap_err().contains("a list of 1 numbers, expected 0 or 1"));
    }
    // Class numbers, each once in a list, are what they were; twice, they are something else.
    for found in read_as(&[&[0, 2], &[1], &[]]) {
        assert_eq!(found.unwrap(), [has(&[0, 2]), has(&[1]), has(&[])]);
    }
    for lists in [[&[0, 2][..], &[2, 2, 1]], [&[1, 0, 1], &[0, 2, 1]], [&[2, 1], &[0, 0]]] {
        for found in read_as(&lists) {
            let error = found.unwrap_err();
            assert!(error.contains("found numbers that fit neither"), "{error}");
        }
    }
}

/// A file that says that it holds class numbers holds no 0 and 1.
#[test]
fn a_list_of_class_numbers_has_each_once() {
    let scratch = Scratch::new();
    let task = TaskType::MultiLabel;
    let path = scratch.path("classes.parquet");
    let field = "OPTIONAL group label (LIST) { REPEATED group list { REQUIRED INT64 element; } }";
    let classes = |values: &[i64], levels: (&[i16], &[i16])| {
        let names = Some(&["x", "y"][..]);
        write_parquet::<Int64Type>(&path, &["a", "b"], field, values, Some(levels), names);
        let table = data::read(&path, &columns()).unwrap();
        let labels = Labels::of(task, &path, &table, false).unwrap();
        labels.targets(task, &table.rows).map_err(|error| error.to_string())
    };
    let two = |has: &[u32]| Target::Labels { present: has.to_vec(), num_labels: 2 };
    let found = classes(&[0, 1, 1], (&[2, 2, 2], &[0, 1, 0])).unwrap();
    assert_eq!(found, [two(&[0, 1]), two(&[1])]);
    let error = classes(&[0, 0, 1], (&[2, 2, 2], &[0, 1, 0])).unwrap_err();
    assert!(error.contains("classes.parquet:1: a label occurs twice in this list"), "{error}");
}

/// A list that was printed into a cell, by pandas or NumPy, is not the name of a class.
#[test]
fn a_list_that_is_a_text_is_refused() {
    let scratch = Scratch::new();
    let task = TaskType::MultiLabel;
    for list in [
        "[0, 1, 1]",
        "[0 1 1]",
        "[1. 0.]",
        "['a', 'b c']",
        "[\"a\"]",
        "[a, b]",
        "[]",
        "(0, 1)",
        "{'a'}",
    ] {
        let cell = list.replace('"', "\"\"");
        let path = scratch.write("x.csv", format!("text,label\na,\"{cell}\"\nb,x\n"));
        for task in [task, TaskType::Classification] {
            let error = of(task, &path, &read(&path, &columns()).unwrap()).unwrap_err().to_string();
            assert!(
                error.contains("x.csv:2") && error.contains("a list written as text"),
                "{error}"
            );
        }
        let labels = LabelColumns::One { name: "label".into(), separator: Some(",".into()) };
        let error = read(&path, &Columns { labels, ..columns() }).unwrap_err().to_string();
        assert!(
            error.contains("x.csv:2") && error.contains("expected labels separated by \",\""),
            "{error}"
        );
    }
    // Without brackets they may be what a separator cuts.
    for list in ["0 1 1", "1|0"] {
        let path = scratch.write("x.csv", format!("text,label\na,{list}\nb,x\n"));
        let error = of(task, &path, &read(&path, &columns()).unwrap()).unwrap_err().to_string();
        assert!(error.contains("x.csv:2") && error.contains("a list written as text"), "{error}");
    }
    for name in ["[good]", "(1)", "{x}", "[a] or [b]", "1 2 3", "a|b"] {
        let path = scratch.write("x.csv", format!("text,label\na,{name}\nb,x\n"));
        assert!(
            of(task, &path, &read(&path, &columns()).unwrap())
                .unwrap()
                .names
                .contains(&name.into())
        );
    }
}

/// Three rows in every format, the second of them with `label`.
fn files_with_a_label(scratch: &Scratch, label: &str) -> Vec<std::path::PathBuf> {
    let folder = scratch.path("folder");
    let _ = std::fs::remove_dir_all(&folder);
    let mut files = vec![
        scratch.write("x.csv", format!("text,label\na,x\nb,{label}\nc,y\n")),
        scratch.write("x.tsv", format!("text\tlabel\na\tx\nb\t{label}\nc\ty\n")),
        scratch.write(
            "x.jsonl",
            ["x", label, "y"]
                .map(|label| serde_json::json!({"text": "a", "label": label}).to_string())
                .join("\n"),
        ),
        scratch.path("x.parquet"),
    ];
    let values = ["x", label, "y"].map(ByteArray::from);
    let field = "REQUIRED BYTE_ARRAY label (UTF8);";
    write_parquet::<ByteArrayType>(&files[3], &["a", "b", "c"], field, &values, None, None);
    if !label.trim().is_empty() && !label.contains('/') {
        for name in ["x", label, "y"] {
            scratch.write(&format!("folder/{name}/1.txt"), "a");
        }
        files.push(folder);
    }
    files
}

/// What programs write where a label is missing, in every format.
#[test]
fn a_missing_label_is_no_class_unless_it_is_named() {
    let scratch = Scratch::new();
    let task = TaskType::Classification;
    let files = |label: &str| files_with_a_label(&scratch, label);
    let missing = [
        "nan", "NaN", "NAN", "-nan", "null", "NULL", "None", "NA", "<NA>", "N/A", "n/a", "#N/A",
        "NaT", "\\N", "#NULL!", "\u{feff}",
    ];
    for label in missing {
        for path in files(label) {
            let rows = read(&path, &columns()).unwrap();
            let error = of(task, &path, &rows).unwrap_err().to_string();
            let named = path.is_dir() || error.contains(":2: ") || error.contains(":3: ");
            assert!(named && error.contains("write this text for a missing value"), "{error}");
            // The training's names do not have it either.
            let labels = Labels { names: ["x", "y"].map(String::from).into(), declared: true };
            let error = labels.targets(task, &rows).unwrap_err().to_string();
            assert!(error.contains("write this text for a missing value"), "{error}");
            if label != "\u{feff}" {
                let names = ["x".into(), label.into(), "y".into()].into();
                let labels = Labels { names, declared: true };
                assert_eq!(labels.targets(task, &rows).unwrap().len(), 3, "{label}");
            }
        }
    }
}

/// No label at all, words that may be names, and rows that are left out.
#[test]
fn a_row_without_a_label_is_refused_or_left_out() {
    let scratch = Scratch::new();
    let task = TaskType::Classification;
    let files = |label: &str| files_with_a_label(&scratch, label);
    for label in ["", "  "] {
        for path in files(label) {
            let error = read(&path, &columns()).unwrap_err().to_string();
            assert!(error.contains("no label"), "{error}");
        }
    }
    // Words that are good names of classes, but not among numbers.
    for label in ["none", "NONE", "na", "?", "-"] {
        for path in files(label) {
            assert_eq!(of(task, &path, &read(&path, &columns()).unwrap()).unwrap().names.len(), 3);
        }
        let path = scratch.write("x.csv", format!("text,label\na,0\nb,{label}\nc,1\n"));
        let error = of(task, &path, &read(&path, &columns()).unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("x.csv:3") && error.contains("write this text for a missing value"),
            "{error}"
        );
    }
    // Rows are left out where that is asked for.
    scratch.write("train.tsv", reviews(96, 1) + "the film was odd\tnan\nthe plot was odd\tNone\n");
    refused(&scratch.train(&["--dry-run"]), 1, &["train.tsv:", "for a missing value"]);
    let output = scratch.train(&["--dry-run", "--set", "data.skip_bad_rows=true"]);
    succeeded(&output);
    assert!(stdout(&output).contains("96 training rows") && stdout(&output).contains("2 labels"));
    assert!(
        stderr(&output).contains("2 rows left out because of their labels"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn labels_that_only_look_alike_are_one_class_or_an_error() {
    let scratch = Scratch::new();
    let task = TaskType::Classification;
    let rows = |labels: &[&str]| {
        let lines = labels
            .iter()
            .map(|label| serde_json::json!({"text": "a", "label": label}).to_string() + "\n");
        read(&scratch.write("x.jsonl", lines.collect::<String>()), &columns()).unwrap()
    };
    let path = scratch.path("x.jsonl");
    for (a, b) in [
        ("Spam", "spam"),
        ("stra\u{df}e", "STRASSE"),
        ("caf\u{e9}", "CAFE\u{301}"),
        ("not spam", "not\u{a0} spam"),
        ("ham", "ha\u{ad}m"),
        ("ham", "ha\u{200e}m"),
        ("ham", "\u{2067}ham\u{2069}"),
        ("ham", "\u{202a}ham\u{202c}"),
        ("ham", "h\u{200d}am\u{feff}"),
        ("ham", "ham\u{7}\u{2065}"),
        ("1", "1.0"),
        ("01", "1"),
        ("10", "1e1"),
        ("-0", "0"),
    ] {
        // In the data that is learned from, unless both are named.
        let both = rows(&[a, b, if a.chars().any(|c| c.is_numeric()) { "7" } else { "seven" }]);
        let error = of(task, &path, &both).unwrap_err().to_string();
        assert!(error.contains("looks like the label") && error.contains("x.jsonl:1"), "{error}");
        let named = Labels { names: [a, b].map(String::from).into(), declared: true };
        let targets = named.targets(task, &rows(&[b, a])).unwrap();
        assert_eq!(targets, [1, 0].map(Target::Class));
        // Against the labels of a task.
        let filler = if a.chars().any(|c| c.is_numeric()) { "7" } else { "seven" };
        let names = [filler, a].map(String::from);
        for declared in [false, true] {
            let labels = Labels { names: names.clone().into(), declared };
            let targets = labels.targets(task, &rows(&[b, filler])).unwrap();
            assert_eq!(targets, [1, 0].map(Target::Class), "{a} {b}");
            let error = labels.targets(task, &rows(&[a, b])).unwrap_err().to_string();
            assert!(
                error.contains("x.jsonl:2") && error.contains("in several spellings"),
                "{error}"
            );
        }
    }
    // No label is like two.
    let labels = Labels { names: ["US", "us"].map(String::from).into(), declared: true };
    let error = labels.targets(task, &rows(&["Us"])).unwrap_err().to_string();
    assert!(error.contains("matches several labels of the task: US, us"), "{error}");
    let labels = Labels { names: ["a", "a"].map(String::from).into(), declared: true };
    assert!(labels.targets(task, &rows(&["a"])).is_err());
    // Long numbers that a float cannot tell apart.
    let (a, b) = ("9007199254740993", "9007199254740992");
    assert_eq!(of(task, &path, &rows(&[a, b])).unwrap().names, [b, a]);
    // Messages stay short.
    let many: Vec<String> = (0..5000).map(|i| format!("{i} {}", "x".repeat(500))).collect();
    let labels = Labels { names: many.clone(), declared: false };
    let others: Vec<String> = many.iter().map(|name| format!("y{name}")).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let error = labels.targets(task, &rows(&others)).unwrap_err().to_string();
    assert!(error.len() < 4000 && error.contains("0 xxx") && error.contains("y0 xxx"), "{error}");
}

/// A number to predict is not a class, and a number with a comma is not a label.
#[test]
fn labels_that_are_numbers_to_predict_are_noticed() {
    let scratch = Scratch::new();
    let train = |labels: &mut dyn Iterator<Item = String>| {
        let rows = labels.enumerate().map(|(i, label)| format!("text {i}\t{label}\n"));
        let rows: String = rows.collect();
        for name in ["train.tsv", "eval.tsv"] {
            scratch.write(name, format!("text\tlabel\n{rows}"));
        }
        scratch.train(&["--dry-run"])
    };
    for (labels, warned) in [
        (
            &mut (0..60).map(|i| format!("{:.2}", f64::from(i * 37 % 101) / 20.0))
                as &mut dyn Iterator<Item = String>,
            true,
        ),
        (&mut (0..60).map(|i| (100 + i).to_string()), true),
        (&mut (0..60).map(|i| (0.5 * f64::from(1 + i % 3)).to_string()), true),
        (&mut (0..60).map(|i| (i % 12).to_string()), false),
        (&mut (0..60).map(|i| format!("{:.1}", f64::from(i % 3))), false),
        (&mut (0..60).map(|i| format!("topic {i}")), false),
    ] {
        let output = train(labels);
        succeeded(&output);
        let found = stderr(&output);
        assert_eq!(found.contains("model.task_type = \"regression\""), warned, "{found}");
    }
    let output = train(&mut (0..60).map(|i| ["pos", "neg", "1"][i % 3].to_owned()));
    succeeded(&output);
    let parts = ["some labels are numbers, such as \"1\", and some are words, such as \"neg\""];
    assert!(parts.iter().all(|part| stderr(&output).contains(part)), "{}", stderr(&output));
    // The labels are blamed, not how few rows there are to split.
    let rows: String = (0..12).map(|i| format!("text {i},\"{i},5\"\n")).collect();
    scratch.write("comma.csv", format!("text,label\n{rows}"));
    let comma = ["--dry-run", "--set", "data.train=comma.csv", "--set", "data.eval="];
    let parts = ["comma.csv:2", "label \"0,5\"", "a decimal comma, write 0.5", "regression"];
    refused(&scratch.train(&comma), 1, &parts);
    let regression = [&comma[..], &["--set", "model.task_type=regression"]].concat();
    let parts = ["comma.csv:2", "label \"0,5\"", "expected a number", "a decimal comma, write 0.5"];
    refused(&scratch.train(&regression), 1, &parts);
    // Before three digits it may stand between thousands.
    for (labels, part) in [
        (
            ["1,000", "2,000"],
            "a comma that can be a decimal comma or separate thousands, write 1000 or 1.000",
        ),
        (["1,234,000", "7"], "a number with commas between thousands, write 1234000"),
        (["1,000.5", "7"], "a number with commas between thousands, write 1000.5"),
        (["0,500", "7"], "a number with a decimal comma, write 0.500"),
    ] {
        let rows = labels.map(|label| format!("text,\"{label}\"\n")).concat();
        let path = scratch.write("comma.csv", format!("text,label\n{rows}"));
        let rows = read(&path, &columns()).unwrap();
        let error = of(TaskType::Classification, &path, &rows).unwrap_err().to_string();
        assert!(error.contains("comma.csv:2") && error.contains(part), "{error}");
        let error = Labels::default().targets(TaskType::Regression, &rows).unwrap_err().to_string();
        assert!(error.contains("comma.csv:2") && error.contains(part), "{error}");
    }
}

#[test]
fn a_value_of_json_is_what_is_written() {
    let scratch = Scratch::new();
    let written = |lines: &[&str]| read(&scratch.write("x.jsonl", lines.join("\n")), &columns());
    // What `json.loads` of Python gives; and 1.0 is 1, -0 is 0.
    for (label, expected) in [
        ("100000000000000000001", "100000000000000000001"),
        ("-18446744073709551617", "-18446744073709551617"),
        ("18446744073709551615", "18446744073709551615"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("1.0", "1"),
        ("1e2", "100"),
        ("1.5", "1.5"),
        ("true", "true"),
        ("\"1.0\"", "1.0"),
    ] {
        let line = format!("{{\"text\": {label}, \"label\": {label}}}");
        assert_eq!(texts(&written(&[&line]).unwrap()), [(expected, expected)]);
        let line = format!("{{\"text\": \"a\", \"label\": [ {label} , \"x\"]}}");
        assert_eq!(names(&written(&[&line]).unwrap()), [[expected, "x"]]);
    }
    let fine = "{\"text\": \"a\", \"label\": 1}";
    for (line, part) in [
        ("{\"text\": \"a\", \"label\": tru}", "x.jsonl:2: not JSON: expected ident"),
        ("{\"text\": \"a\", \"label\": 1e999}", "x.jsonl:2: not JSON: number out of range"),
        (
            "{\"text\": \"a\", \"label\": 1, \"label\": 2}",
            "x.jsonl:2: more than one field \"label\" (label_column)",
        ),
        ("{\"text\": \"a\", \"label\": [null]}", "found [null], expected a label"),
    ] {
        let error = written(&[fine, line]).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains(" column 2"), "{error}");
        assert!(!error.contains("at line"), "{error}");
    }
}

/// What is likely meant otherwise is said, and what could be two things is refused.
#[test]
fn labels_that_may_mean_something_else_are_noticed() {
    let scratch = Scratch::new();
    let train = |labels: &[&str], more: &[&str]| {
        let row = |i: usize| format!("text {i}\t{}\n", labels[i % labels.len()]);
        let rows: String = (0..24).map(row).collect();
        for name in ["train.tsv", "eval.tsv"] {
            scratch.write(name, format!("text\tlabel\n{rows}"));
        }
        scratch.train(&[&["--dry-run"][..], more].concat())
    };
    let several = ["--set", "model.task_type=multi_label", "--set", "data.label_separator=','"];
    for (labels, warned) in [(["a;b", "b", "b;c"], true), (["a;b,c", "b", "b;c"], false)] {
        let output = train(&labels, &several);
        succeeded(&output);
        let part = "no row has more than one label, but one label is \"a;b\"";
        assert_eq!(stderr(&output).contains(part), warned, "{}", stderr(&output));
    }
    let five = ["--set", "model.label_names=[\"a\", \"b\", \"c\", \"d\", \"e\"]"];
    for (labels, warned) in [(["1", "2", "3", "4"], true), (["0", "1", "2", "3"], false)] {
        let output = train(&labels, &five);
        succeeded(&output);
        let found = stderr(&output);
        let part = "train.tsv: the labels are the numbers 1 to 4, without 0";
        assert_eq!(found.contains(part), warned, "{found}");
        assert_eq!(found.contains("1 means \"b\" and no row is \"a\""), warned, "{found}");
    }
    for (key, value, other) in [
        ("data.label_column", "text", "data.text_column"),
        ("data.text_pair_column", "text", "data.text_column"),
        ("data.text_pair_column", "label", "data.text_pair_column"),
    ] {
        let output = train(&["a", "b"], &["--set", &format!("{key}={value}")]);
        refused(&output, 2, &[&format!("another column than {other}")]);
    }
    let weights = train(&["a", "b"], &["--set", "training.class_weights=[1e-45, 1e-45]"]);
    refused(&weights, 2, &["class_weights", "at least 1.2e-38"]);
    // In one column, 0 and 1 may be of one label of several.
    let named = Labels { names: ["a", "b", "c"].map(String::from).into(), declared: true };
    let targets = |labels: &[&str]| {
        let rows = labels.iter().map(|label| format!("text,{label}\n")).collect::<String>();
        let path = scratch.write("x.csv", format!("text,label\n{rows}"));
        named.targets(TaskType::MultiLabel, &read(&path, &columns()).unwrap())
    };
    let error = targets(&["0", "1"]).unwrap_err().to_string();
    assert!(
        error.contains("x.csv:2") && error.contains("a single column of 0 and 1 is ambiguous"),
        "{error}"
    );
    let has = |class| Target::Labels { present: vec![class], num_labels: 3 };
    assert_eq!(targets(&["0", "2"]).unwrap(), [has(0), has(2)]);
    assert_eq!(targets(&["a", "b"]).unwrap(), [has(0), has(1)]);
}

/// What lists mean is decided by the whole file: rows that were split off or drawn may look like
/// something else.
#[test]
fn class_numbers_stay_what_they_are_when_rows_are_split_off() {
    let scratch = Scratch::new();
    let rows = (0..40).map(|i| {
        let labels = [&[0, 2][..], &[1], &[0], &[0, 1]][i % 4];
        serde_json::json!({"text": format!("text {i}"), "label": labels}).to_string() + "\n"
    });
    scratch.write("train.jsonl", rows.collect::<String>());
    let task = [
        "--set",
        "data.train=train.jsonl",
        "--set",
        "data.eval=",
        "--set",
        "data.eval_samples=2",
        "--set",
        "model.task_type=multi_label",
        "--set",
        "model.label_names=[\"a\", \"b\", \"c\"]",
        "--set",
        "training.max_steps=1",
    ];
    succeeded(&scratch.train(&task));
    succeeded(&scratch.bitfit(&["eval", "--run", "run"]));
}

/// Names of classes in the metadata of a file are compared with the task's, not its numbers.
#[test]
fn evaluation_goes_by_the_names_of_classes() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=1"]));
    let accuracy = |data: &str| {
        let output = scratch.bitfit(&["eval", "--run", "run", "--data", data, "--json"]);
        succeeded(&output);
        let found: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        found["metrics"].clone()
    };
    let expected = accuracy("eval.tsv");
    let text = std::fs::read_to_string(scratch.path("eval.tsv")).unwrap();
    let rows: Vec<_> = text.lines().skip(1).map(|line| line.split_once('\t').unwrap()).collect();
    let texts: Vec<&str> = rows.iter().map(|(text, _)| *text).collect();
    let path = scratch.path("names.parquet");
    let write = |names: [&str; 2]| {
        let positive = names.iter().position(|name| name.to_lowercase() == "positive");
        let class = |label: &str| (label == "positive") == (positive.unwrap_or(1) == 1);
        let values: Vec<i64> = rows.iter().map(|(_, label)| i64::from(class(label))).collect();
        let field = "REQUIRED INT64 label;";
        write_parquet::<Int64Type>(&path, &texts, field, &values, None, Some(&names));
    };
    for names in [["negative", "positive"], ["POSITIVE", "Negative"]] {
        write(names);
        assert_eq!(accuracy("names.parquet"), expected, "{names:?}");
    }
    write(["bad", "good"]);
    refused(
        &scratch.bitfit(&["eval", "--run", "run", "--data", "names.parquet"]),
        1,
        &[
            "names.parquet:1",
            "expected one of negative, positive",
            "the labels of this data are bad, good",
        ],
    );
}

/// A folder's name that is not UTF-8 would be shown as another, and two of them could be one class.
#[test]
fn class_folders_have_names_in_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = Scratch::new();
    for name in [&b"a\xff"[..], b"a\xfe", b"b"] {
        let folder = scratch.path("folder").join(std::ffi::OsStr::from_bytes(name));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("1.txt"), "text").unwrap();
    }
    let error = read(&scratch.path("folder"), &columns()).unwrap_err().to_string();
    assert!(error.contains("is not UTF-8"), "{error}");
}

/// 10,000 labels are allowed: nothing may grow with their square, or with labels times rows.
#[test]
fn many_labels_need_little_memory() {
    let scratch = Scratch::new();
    let many = ["--set", "model.num_labels=10000", "--set", "training.max_steps=1"];
    let rows = |count: usize, label: &dyn Fn(usize) -> String| {
        let row = |i| format!("the film was number {i}\t{}\n", label(i));
        format!("text\tlabel\n{}", (0..count).map(row).collect::<String>())
    };
    for name in ["train.tsv", "eval.tsv"] {
        scratch.write(name, rows(8, &|i| i.to_string()));
    }
    succeeded(&scratch.train(&many));
    let (output, base) = scratch.bitfit_measured(&["inspect", "--model", "base"]);
    succeeded(&output);
    scratch.write("many.tsv", rows(10_000, &|i| i.to_string()));
    let eval = ["eval", "--run", "run", "--data", "many.tsv", "--json"];
    let (output, peak) = scratch.bitfit_measured(&eval);
    succeeded(&output);
    let found: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let cells = found["report"]["confusion_cells"].as_array().unwrap();
    assert_eq!(cells.iter().map(|cell| cell[2].as_u64().unwrap()).sum::<u64>(), 10_000);
    println!("inspect {base} MiB, eval {peak} MiB, {} bytes of JSON", output.stdout.len());
    assert!(peak < base + 1024, "{peak} MiB, and inspect {base}");
    assert!(output.stdout.len() < 4 << 20);
    let predict = ["predict", "--run", "run", "--input", "eval.tsv", "--batch-size", "65536"];
    scratch.write("eval.tsv", rows(1000, &|i| i.to_string()));
    let (output, peak) = scratch.bitfit_measured(&predict);
    succeeded(&output);
    assert_eq!(stdout(&output).lines().count(), 1000);
    assert!(peak < base + 512, "{peak} MiB, and inspect {base}");
    // Several labels a row.
    scratch
        .write("train.tsv", rows(60_000, &|i| format!("{};{}", i % 10_000, (i * 7 + 1) % 10_000)));
    let config = scratch.path("config.toml");
    let several = [
        &["train", "--overwrite", "--dry-run", "--config", config.to_str().unwrap()][..],
        &many,
        &["--set", "model.task_type=multi_label", "--set", "data.label_separator=';'"],
    ];
    let (output, peak) = scratch.bitfit_measured(&several.concat());
    succeeded(&output);
    println!("60,000 rows of several labels: {peak} MiB");
    assert!(peak < base + 1024, "{peak} MiB, and inspect {base}");
}

/// The fingerprint by which `--resume` knows its rows has a byte for each label, however targets
/// are kept.
#[test]
fn the_fingerprint_of_several_labels_is_that_of_truth_values() {
    use sha2::Digest;
    let scratch = Scratch::new();
    let set = ["b;a", "", "c", "a;c"];
    for name in ["train.tsv", "eval.tsv"] {
        let rows = set.map(|labels| format!("the film was great\t{labels}\n")).concat();
        scratch.write(name, format!("text\tlabel\n{rows}"));
    }
    let task = ["--set", "model.task_type=multi_label", "--set", "data.label_separator=;"];
    succeeded(&scratch.train(&[&task[..], &["--set", "training.max_steps=1"]].concat()));
    let text = std::fs::read_to_string(scratch.path("run/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let tokens =
        Tokenizer::read(&scratch.path("base")).unwrap().encode("the film was great", None, 32);
    let mut hash = sha2::Sha256::new();
    for _ in ["train", "eval"] {
        hash.update(set.len().to_le_bytes());
        for flags in [[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1]] {
            hash.update(tokens.ids.len().to_le_bytes());
            hash.update(tokens.first.to_le_bytes());
            tokens.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            hash.update(flags.map(|flag: u8| flag));
        }
    }
    assert_eq!(manifest["data_fingerprint"], bitfit::internal::files::hex(&hash.finalize()));
}

#[test]
fn a_loss_that_is_not_finite_is_refused() {
    let scratch = Scratch::new();
    for name in ["train.tsv", "eval.tsv"] {
        scratch.write(name, "text\tlabel\ngreat\t1\nawful\t0\n");
    }
    let task = ["--set", "model.task_type=regression", "--set", "training.max_steps=1"];
    succeeded(&scratch.train(&task));
    scratch.write("far.tsv", "text\tlabel\ngreat\t1e30\nawful\t0\n");
    let eval = ["eval", "--run", "run", "--data", "far.tsv", "--json"];
    let parts = ["loss on these rows is inf", "extreme labels"];
    refused(&scratch.bitfit(&eval), 1, &parts);
}

#[test]
fn texts_become_ids_with_special_tokens_and_are_cut() {
    let tokenizer = Tokenizer::read(&golden_dir().join("tiny-bert")).unwrap();
    let id = |piece: &str| {
        let vocabulary = std::fs::read_to_string(golden_dir().join("tiny-bert/vocab.txt")).unwrap();
        vocabulary.lines().position(|line| line == piece).unwrap() as u32
    };
    let ids = |pieces: &[&str]| pieces.iter().map(|piece| id(piece)).collect::<Vec<_>>();
    let plain = tokenizer.encode("The plot\u{2028}was GREAT!", None, 128);
    assert_eq!(plain.ids, ids(&["[CLS]", "the", "plot", "was", "great", "!", "[SEP]"]));
    assert_eq!(plain.first, 7);
    assert_eq!(
        tokenizer.encode("the plot was great", None, 4).ids,
        ids(&["[CLS]", "the", "plot", "[SEP]"])
    );
    assert_eq!(tokenizer.encode("", None, 4).ids, ids(&["[CLS]", "[SEP]"]));
    let pair = tokenizer.encode("the film", Some("was great"), 128);
    assert_eq!(pair.ids, ids(&["[CLS]", "the", "film", "[SEP]", "was", "great", "[SEP]"]));
    assert_eq!(pair.first, 4);
    // Longest first; what transformers 4.57.6 keeps: (tokens of a, of b, most, kept of each).
    for (a, b, most, kept) in [
        (5, 2, 8, (3, 2)),
        (2, 5, 8, (2, 3)),
        (5, 5, 8, (2, 3)),
        (9, 1, 8, (4, 1)),
        (5, 5, 4, (0, 1)),
        (40, 35, 32, (15, 14)),
        (35, 40, 32, (14, 15)),
        (35, 35, 32, (14, 15)),
        (40, 35, 31, (14, 14)),
        (29, 40, 32, (14, 15)),
        (40, 29, 32, (15, 14)),
        (28, 40, 32, (14, 15)),
        (40, 14, 32, (15, 14)),
        (40, 13, 32, (16, 13)),
        (5, 5, 3, (0, 0)),
    ] {
        let cut = tokenizer.encode(&"the ".repeat(a), Some(&"film ".repeat(b)), most);
        assert_eq!((cut.first - 2, cut.ids.len() - cut.first - 1), kept, "{a} and {b} in {most}");
    }
}

/// A long text is not read to its end; what is kept must not depend on that.
#[test]
fn a_long_text_gives_the_ids_of_its_beginning() {
    let tokenizer = Tokenizer::read(&golden_dir().join("tiny-bert")).unwrap();
    let spaces = " ".repeat(3000);
    let long = "film,".repeat(2000);
    for text in [
        "the plot was gr\u{e9}at ".repeat(1000),
        format!("the{spaces}plot{spaces}was{spaces}great"),
        format!("{long} {long}"),
        format!("{}\u{e9} \u{301}x", "a".repeat(500)),
        "\u{1f600}".repeat(2000),
        "\u{4e00}\u{4e01} ".repeat(2000),
    ] {
        let whole = tokenizer.encode(&text, None, 1 << 20);
        for most in [3, 16, 40] {
            let cut = tokenizer.encode(&text, None, most);
            let kept = most.min(whole.ids.len()) - 2;
            assert_eq!(cut.ids[1..=kept], whole.ids[1..=kept]);
            assert_eq!(cut.ids.len(), kept + 2);
            // Both halves of a pair are cut alike.
            let pair = tokenizer.encode(&text, Some(&text), most);
            assert_eq!(pair.ids[1..pair.first - 1], whole.ids[1..pair.first - 1]);
        }
    }
}

#[test]
fn a_tokenizer_that_cannot_be_used_is_refused() {
    let scratch = Scratch::new();
    let refuse = |name: &str, text: &str, parts: &[&str]| {
        let before = std::fs::read(scratch.path(name)).unwrap();
        scratch.write(name, text);
        let error = Tokenizer::read(&scratch.path("base")).err().unwrap().to_string();
        for part in parts.iter().chain([&name]) {
            assert!(error.contains(part), "expected {part:?} in: {error}");
        }
        scratch.write(name, before);
    };
    refuse("base/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[MASK]\nx\n", &["[SEP]"]);
    refuse("base/vocab.txt", "", &["vocab"]);
    refuse(
        "base/tokenizer_config.json",
        "{\"do_lower_case\": 3}",
        &["do_lower_case: found 3, expected true"],
    );
    refuse(
        "base/tokenizer_config.json",
        "{\"tokenizer_class\": \"PhobertTokenizer\"}",
        &[
            "PhobertTokenizer",
            "expected one of BertTokenizer, DistilBertTokenizer, RobertaTokenizer",
        ],
    );
    let more = std::fs::read_to_string(scratch.path("base/vocab.txt")).unwrap() + "word\n";
    scratch.write("base/vocab.txt", (0..40).fold(more, |text, i| text + &format!("word{i}\n")));
    let output = scratch.train(&[]);
    crate::common::refused(&output, 1, &["vocabulary of", "vocab_size = 120"]);
}

#[test]
fn tokenizer_json_of_another_kind_is_refused() {
    let scratch = Scratch::of("tiny-roberta");
    let whole: serde_json::Value =
        serde_json::from_slice(&std::fs::read(scratch.path("base/tokenizer.json")).unwrap())
            .unwrap();
    let refuse = |change: &dyn Fn(&mut serde_json::Value), parts: &[&str]| {
        let mut value = whole.clone();
        change(&mut value);
        scratch.write("base/tokenizer.json", value.to_string());
        let error = Tokenizer::read(&scratch.path("base")).err().unwrap().to_string();
        for part in parts.iter().chain(&["tokenizer.json"]) {
            assert!(error.contains(part), "expected {part:?} in: {error}");
        }
    };
    refuse(
        &|v| v["model"]["type"] = "Unigram".into(),
        &["unsupported tokenizer", "Unigram", "expected BPE"],
    );
    refuse(&|v| v["model"] = serde_json::Value::Null, &["model: found none"]);
    refuse(
        &|v| v["pre_tokenizer"]["type"] = "Metaspace".into(),
        &["pre_tokenizer: found Metaspace", "ByteLevel"],
    );
    refuse(&|v| v["normalizer"] = serde_json::json!({"type": "NFKC"}), &["normalizer: found NFKC"]);
    refuse(&|v| v["post_processor"] = serde_json::Value::Null, &["post_processor: found none"]);
    refuse(&|v| v["model"]["dropout"] = 0.1.into(), &["model.dropout", "0.1", "null"]);
    refuse(&|v| v["model"]["vocab"]["Ġt"] = "x".into(), &["model.vocab[\"Ġt\"]", "\"x\"", "an id"]);
    refuse(
        &|v| v["post_processor"]["type"] = "Sequence".into(),
        &["post_processor.type", "Sequence"],
    );
    refuse(
        &|v| v["post_processor"]["cls"] = "<s>".into(),
        &["post_processor.cls", "a token and its id"],
    );
    refuse(
        &|v| v["model"]["byte_fallback"] = true.into(),
        &["model.byte_fallback", "true", "false"],
    );
    refuse(&|v| v["model"]["merges"][0] = "Ġ".into(), &["model.merges", "two tokens"]);
    refuse(&|v| v["model"]["merges"][0] = "Ġ zebra".into(), &["zebra", "not in the vocabulary"]);
    refuse(&|v| v["model"]["vocab"] = serde_json::json!([1]), &["model.vocab", "an object of ids"]);
    refuse(&|v| v["added_tokens"] = serde_json::json!([{"id": "x"}]), &["added_tokens"]);
}

#[test]
fn a_tokenizer_whose_files_are_damaged_or_missing_is_refused() {
    let scratch = Scratch::of("tiny-roberta");
    scratch.write("base/tokenizer.json", "{");
    let error = Tokenizer::read(&scratch.path("base")).err().unwrap().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("line 1"), "{error}");
    for name in ["tokenizer.json", "merges.txt"] {
        std::fs::remove_file(scratch.path("base").join(name)).unwrap();
    }
    let error = Tokenizer::read(&scratch.path("base")).err().unwrap().to_string();
    assert!(
        error.contains("no tokenizer found") && error.contains("vocab.json and merges.txt"),
        "{error}"
    );
    scratch.write("base/merges.txt", "#version: 0.2\nĠ t\nbroken\n");
    let error = Tokenizer::read(&scratch.path("base")).err().unwrap().to_string();
    assert!(
        error.contains("merges.txt:3") && error.contains("\"broken\", expected two tokens"),
        "{error}"
    );
    scratch.write("base/merges.txt", "#version: 0.2\nĠ t\nzeb ra\n");
    let error = Tokenizer::read(&scratch.path("base")).err().unwrap().to_string();
    assert!(error.contains("merges.txt:3") && error.contains("\"zeb ra\""), "{error}");
}

/// What the files beside the vocabulary say, as transformers takes it.
#[test]
fn a_tokenizers_settings_are_obeyed() {
    let scratch = Scratch::new();
    let whole =
        |text: &str| Tokenizer::read(&scratch.path("base")).unwrap().encode(text, None, 99).ids;
    let vocab = std::fs::read_to_string(scratch.path("base/vocab.txt")).unwrap();
    let id = |piece: &str| vocab.lines().position(|line| line == piece).unwrap() as u32;
    let config = |text: &str| scratch.write("base/tokenizer_config.json", text);
    let [cls, sep] = ["[CLS]", "[SEP]"].map(id);
    let pieces = |texts: &[&str]| -> Vec<u32> {
        [cls].into_iter().chain(texts.iter().map(|piece| id(piece))).chain([sep]).collect()
    };
    assert_eq!(whole("badfilm [MASK]"), pieces(&["bad", "##f", "##i", "##l", "##m", "[MASK]"]));
    // Special tokens of any name are found in the midst of words, and in the case that they are
    // written in.
    config(
        "{\"additional_special_tokens\": [\"film\"], \"bos_token\": {\"content\": \"plot\", \"lstrip\": true}}",
    );
    assert_eq!(whole("badfilm Film  plot"), pieces(&["bad", "film", "film", "plot"]));
    assert_eq!(whole("badFilm"), pieces(&["bad", "##f", "##i", "##l", "##m"]));
    // special_tokens_map.json is later than tokenizer_config.json, unless that lists all added
    // tokens itself.
    scratch.write("base/special_tokens_map.json", "{\"cls_token\": \"plot\"}");
    assert_eq!(whole("bad"), [id("plot"), id("bad"), sep]);
    // Whatever id that says, one of the vocabulary has the vocabulary's, and a new one the next.
    config("{\"added_tokens_decoder\": {\"7\": {\"content\": \"film\", \"special\": true}}}");
    assert_eq!(whole("badfilm"), [cls, id("bad"), id("film"), sep]);
    std::fs::remove_file(scratch.path("base/special_tokens_map.json")).unwrap();
    // added_tokens.json: found after normalizing, and new ids count.
    config("{}");
    let next = vocab.lines().count() as u32;
    scratch.write("base/added_tokens.json", "{\"Brand\": 119}");
    assert_eq!(whole("a bRAND!"), [cls, id("a"), next, id("!"), sep]);
    // One that normalizes to nothing is never found.
    scratch.write("base/added_tokens.json", "{\"\u{200d}\": 119}");
    assert_eq!(whole("a \u{436}"), [cls, id("a"), id("[UNK]"), sep]);
    std::fs::remove_file(scratch.path("base/added_tokens.json")).unwrap();
    // An empty line at a vocabulary's end is no token.
    scratch.write("base/vocab.txt", format!("{vocab}\n\n"));
    assert_eq!(
        Tokenizer::read(&scratch.path("base")).unwrap().vocab_size(),
        vocab.lines().count() as i64
    );
    // The class may be named beside the model's shape.
    let shape = std::fs::read_to_string(scratch.path("base/config.json")).unwrap();
    scratch.write(
        "base/config.json",
        shape.replacen('{', "{\"tokenizer_class\": \"BertJapaneseTokenizer\",", 1),
    );
    let error = Tokenizer::read(&scratch.path("base")).err().unwrap().to_string();
    assert!(error.contains("config.json") && error.contains("BertJapaneseTokenizer"), "{error}");
    config("{\"tokenizer_class\": \"BertTokenizerFast\"}");
    Tokenizer::read(&scratch.path("base")).unwrap();
}

#[test]
fn the_order_is_a_function_of_seed_and_epoch() {
    let order = epoch_order(1000, 42, 0, true);
    assert_eq!(order, epoch_order(1000, 42, 0, true));
    assert_ne!(order, epoch_order(1000, 42, 1, true));
    assert_ne!(order, epoch_order(1000, 43, 0, true));
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, epoch_order(1000, 42, 0, false));
    assert_eq!(
        epoch_order(10, 42, 0, true),
        [9, 7, 2, 5, 0, 1, 4, 3, 8, 6],
        "and of nothing else, in any version"
    );
}

#[test]
fn a_split_takes_its_share_of_each_class() {
    let labels: Vec<usize> = (0..1000).map(|i| usize::from(i % 5 == 0)).chain([2, 3, 3]).collect();
    let (train, eval) = split_by_class(&labels, 0.1, 7);
    let count = |rows: &[usize], class| rows.iter().filter(|&&row| labels[row] == class).count();
    assert_eq!(
        (count(&eval, 0), count(&eval, 1), count(&eval, 2), count(&eval, 3)),
        (80, 20, 0, 1)
    );
    let mut all = [train, eval].concat();
    all.sort_unstable();
    assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());
}

#[test]
fn rows_are_drawn_by_class() {
    let classes: Vec<usize> = (0..1000).map(|i| usize::from(i % 4 == 0)).chain([2]).collect();
    let drawn = draw(&classes, 100, 7);
    let count = |class| drawn.iter().filter(|&&row| classes[row] == class).count();
    assert_eq!((drawn.len(), count(0), count(1)), (100, 75, 25));
    assert!(drawn.windows(2).all(|w| w[0] < w[1]), "in the rows' order");
    assert!(drawn.iter().any(|&row| row > 900), "not the first ones");
    assert_eq!(drawn, draw(&classes, 100, 7));
    assert_ne!(drawn, draw(&classes, 100, 8));
    assert_eq!(draw(&classes, 5000, 7), (0..classes.len()).collect::<Vec<_>>());
    for count in [1, 2, 3, 999, 1000] {
        assert_eq!(draw(&classes, count, 7).len(), count);
    }
    assert!(draw(&[], 3, 7).is_empty());
}

#[test]
fn a_batch_is_packed() {
    let sequences = [
        Encoding { ids: vec![2, 7, 3], first: 3 },
        Encoding { ids: vec![2, 8, 3, 9, 3], first: 3 },
    ];
    let batch = Batch::new(&sequences);
    assert_eq!(batch.input_ids, [2, 7, 3, 2, 8, 3, 9, 3]);
    assert_eq!(batch.position_ids, [0, 1, 2, 0, 1, 2, 3, 4]);
    assert_eq!(batch.token_type_ids, [0, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(batch.cu_seqlens, [0, 3, 8]);
    assert_eq!(batch.max_seqlen, 5);
}
