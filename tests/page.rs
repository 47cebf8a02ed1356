//! `flatnce report`: two small runs and their evaluations as a table, a picture
//! and a page.

mod support;

use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

fn flatnce(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flatnce"));
    command.args(arguments).env("OMP_NUM_THREADS", "1").env("XDG_CACHE_HOME", PLACE.path().join("cache"));
    command.output().unwrap()
}

fn succeed(arguments: &[&str]) -> String {
    let output = flatnce(arguments);
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

static PLACE: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// Results of a FlatCLR and a SimCLR run of two epochs, each evaluated.
static RESULTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let results = PLACE.path().join("results");
    let save = format!("--save-dir={}", results.display());
    for objective in ["flatclr", "simclr"] {
        let clr = format!("--clr={objective}");
        let data = ["--dataset-name=fashion_mnist_mini", "--device=cpu", "--quiet", &save];
        let train =
            ["--model=res10", "--batch-size=8", "--epochs=2", "--train-images=16", "--knn-every=0", "--log-every=1"];
        succeed(&[&data[..], &train, &[&clr]].concat());
        let run = run_directory(&results, objective);
        let checkpoint = format!("--checkpoint-dir={}", run.display());
        succeed(&[&data[..], &["--train-mode=eval", "--fc-epochs=2", "--train-images=64", &checkpoint]].concat());
    }
    results
});

fn run_directory(results: &Path, objective: &str) -> PathBuf {
    let name = if objective == "flatclr" { "8_FlatCLR" } else { "8_SimCLR" };
    let parent = results.join("fashion_mnist_mini").join(name);
    fs::read_dir(parent).unwrap().next().unwrap().unwrap().path()
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// As the page rounds: three significant digits.
fn rounded(value: &Value) -> String {
    flatnce::report::short(value.as_f64().unwrap())
}

#[test]
fn tables_hold_the_numbers_of_the_files() {
    let results = RESULTS.display().to_string();
    let rows: Value = serde_json::from_str(&succeed(&["report", &results, "--format=json"])).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    for row in rows.as_array().unwrap() {
        let objective = row["objective"].as_str().unwrap();
        let run = run_directory(&RESULTS, objective);
        let last = lines(&run.join("metrics.jsonl")).pop().unwrap();
        assert_eq!(row["final_loss_nats"], last["loss_infonce"]);
        let evaluation = Path::new(row["evaluation_directory"].as_str().unwrap()).join("linear_eval.json");
        let outcome: Value = serde_json::from_str(&fs::read_to_string(evaluation).unwrap()).unwrap();
        assert_eq!(row["test_top1_last_epoch"], outcome["test_top1_last_epoch"]);
        assert_eq!((&row["batch_size"], &row["epochs_done"]), (&8.into(), &2.into()));
    }
    let csv = succeed(&["report", &results, "--format=csv"]);
    let mut csv = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = csv.next().unwrap();
    let loss = header.iter().position(|&name| name == "final_loss_nats").unwrap();
    for (line, row) in csv.zip(rows.as_array().unwrap()) {
        assert_eq!(line[loss].parse::<f64>().unwrap(), row["final_loss_nats"].as_f64().unwrap());
    }
    let markdown = succeed(&["report", &results]);
    assert!(markdown.contains("flatclr") && markdown.contains("simclr") && markdown.contains("top-1 last (%)"));
}

/// What the program prints on a terminal of so many columns.
fn on_a_terminal(columns: u16, arguments: &[&str]) -> String {
    let size = libc::winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut ours, mut theirs) = (0, 0);
    // SAFETY: it fills the two numbers, and reads the size.
    assert_eq!(unsafe { libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size) }, 0);
    // SAFETY: both were opened just now, and nobody else has them.
    let (mut ours, theirs) = unsafe { (fs::File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    let mut command = Command::new(env!("CARGO_BIN_EXE_flatnce"));
    command.args(arguments).stdout(theirs).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // With the command goes this process's handle on the other side.
    drop(command);
    let (mut said, mut some) = (Vec::new(), [0; 4096]);
    // Where nobody can write any more, reading is an error.
    while let Ok(count @ 1..) = ours.read(&mut some) {
        said.extend_from_slice(&some[..count]);
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8(said).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_table_fits_the_terminal_that_it_is_printed_on() {
    let results = RESULTS.display().to_string();
    let cells = |text: &str| -> Vec<Vec<String>> {
        let rows = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|-"));
        rows.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
    };
    let whole = cells(&succeed(&["report", &results]));
    assert_eq!(whole.len(), 3, "piped, it is one table with a heading and two rows: {whole:?}");
    for columns in [60, 80, 132, 400] {
        let shown = on_a_terminal(columns, &["report", &results]);
        let too_long = shown.lines().find(|line| line.chars().count() > usize::from(columns));
        assert_eq!(too_long, None, "{columns}");
        // Every cell is there: once for all rows, or in the rows.
        let (same, rest) = shown.split_once("\n\n").expect("a sentence, then tables");
        let same = same.replace('\n', " ");
        assert!(same.starts_with("The same in all rows: data set fashion_mnist_mini, model res10"), "{same}");
        let tables = cells(rest);
        assert!(columns < 400 || tables.len() == 3, "one table where there is room: {shown}");
        for (place, heading) in whole[0].iter().enumerate() {
            let (one, other) = (&whole[1][place], &whole[2][place]);
            if one == other {
                assert!(same.contains(&format!("{heading} {one}")), "{heading}: {same}");
                continue;
            }
            let head = tables.iter().position(|row| row.contains(heading)).expect(heading);
            let at = tables[head].iter().position(|cell| cell == heading).unwrap();
            for (row, cell) in [(1, one), (2, other)] {
                let told = &tables[head + row][at];
                let (start, end) = told.split_once("...").unwrap_or((told, ""));
                assert!(
                    cell.starts_with(start) && cell.ends_with(end) && !told.is_empty(),
                    "{columns}: {told} of {cell}"
                );
                assert!(told == cell || columns < 400, "{columns}: {told}");
            }
        }
    }
    // A single row stands upright; a file and a pipe get the whole table whatever the terminal.
    let run = run_directory(&RESULTS, "flatclr").display().to_string();
    let one = on_a_terminal(60, &["report", &run]);
    assert!(one.lines().all(|line| line.chars().count() <= 60), "{one}");
    let upright = cells(&one);
    assert!(upright.iter().all(|row| row.len() == 2) && upright.len() > 10, "{one}");
    let out = PLACE.path().join("table.md").display().to_string();
    on_a_terminal(60, &["report", &results, "--out", &out]);
    assert_eq!(cells(&fs::read_to_string(&out).unwrap()), whole);
    let json: Value = serde_json::from_str(&on_a_terminal(60, &["report", &results, "--format=json"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);
}

#[test]
fn the_page_is_whole_and_says_what_was_measured() {
    let place = PLACE.path().join("page");
    let (page, pictures, plot) = (place.join("report.html"), place.join("pictures"), place.join("accuracy.png"));
    fs::create_dir_all(&place).unwrap();
    let text = |path: &Path| path.display().to_string();
    succeed(&[
        "report",
        &text(&RESULTS),
        "--html",
        &text(&page),
        "--pictures",
        &text(&pictures),
        "--plot",
        &text(&plot),
    ]);
    let html = fs::read_to_string(&page).unwrap();
    check_elements(&html);
    for forbidden in ["<script", "http://", "https://", "@import", "url("] {
        assert!(!html.contains(forbidden), "{forbidden}: the page is to stand alone");
    }
    // Every epoch's numbers of both runs are points of a curve.
    for objective in ["flatclr", "simclr"] {
        for line in lines(&run_directory(&RESULTS, objective).join("metrics.jsonl")) {
            let epoch = line["epoch"].as_u64().unwrap() + 1;
            for name in ["loss_infonce", "ness_mean", "uniformity", "gradient_norm", "lr"] {
                let told = format!("<title>{objective}: {} at {epoch}</title>", rounded(&line[name]));
                assert!(html.contains(&told), "{name}: {told}");
            }
        }
    }
    // What the runs differ in, and nothing else.
    let differences = html.split("What the runs differ in").nth(1).unwrap().split("</table>").next().unwrap();
    assert!(differences.contains("<th>objective</th><td>flatclr</td><td>simclr</td>"), "{differences}");
    assert_eq!(differences.matches("<tr><th>").count(), 2, "a heading and one setting: {differences}");
    // Two sheets of neighbours inside, and as files; maps with every class.
    assert_eq!(html.matches("src=\"data:image/png;base64,").count(), 2);
    // Each on dark paper too.
    assert_eq!(
        html.matches("<source media=\"(prefers-color-scheme: dark)\" srcset=\"data:image/png;base64,").count(),
        2
    );
    for name in ["neighbours-1-flatclr.png", "map-2-simclr.png", "contrastive-loss.png", "accuracy.png"] {
        let picture = image::open(pictures.join(name)).unwrap().to_rgb8();
        let dark = picture.pixels().filter(|pixel| pixel.0.iter().all(|&level| level < 90)).count();
        assert!(picture.width() >= 400 && dark > 100, "{name}: {dark} dark pixels");
    }
    assert!(html.contains("Ankle boot") && html.contains("of the variance"));
    assert!(image::open(&plot).unwrap().width() >= 400);
    in_a_browser(&page);
}

/// Every element is closed by its own name, in order.
fn check_elements(html: &str) {
    const VOID: [&str; 5] = ["!DOCTYPE", "meta", "link", "img", "source"];
    let mut open: Vec<&str> = Vec::new();
    for tag in html.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        let name = tag.trim_end_matches('/').split([' ', '\n']).next().unwrap();
        if let Some(closed) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "before </{closed}>");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

/// A browser finds nothing to complain of, where one is installed.
fn in_a_browser(page: &Path) {
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let profile = PLACE.path().join("browser");
    let open = |browser: &str| {
        Command::new(browser)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("file://{}", page.display()))
            .output()
            .ok()
    };
    let Some(output) = browsers.into_iter().find_map(open) else {
        return support::absent("no chromium to open the report with");
    };
    let (seen, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let complaints: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    assert!(seen.contains("flatnce report") && seen.matches("<svg").count() > 10);
}

#[test]
fn names_of_people_cannot_break_the_page() {
    let results = PLACE.path().join("odd <b>&amp;");
    let run = results.join("run \"x\"");
    fs::create_dir_all(&run).unwrap();
    let line = lines(&run_directory(&RESULTS, "flatclr").join("metrics.jsonl"))[0].to_string();
    fs::write(run.join("metrics.jsonl"), line + "\n").unwrap();
    let page = results.join("page.html");
    let output = flatnce(&["report", run.to_str().unwrap(), "--html", page.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let html = fs::read_to_string(page).unwrap();
    check_elements(&html);
    assert!(!html.contains("<b>"), "a directory's name is text");
}

#[test]
fn a_runs_evaluations_are_found_wherever_they_lie_among_its_results() {
    for objective in ["flatclr", "simclr"] {
        let run = run_directory(&RESULTS, objective);
        let rows: Value = serde_json::from_str(&succeed(&["report", run.to_str().unwrap(), "--format=json"])).unwrap();
        assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
        assert_eq!(
            (rows[0]["objective"].as_str(), rows[0]["evaluation"].as_str()),
            (Some(objective), Some("linear_eval"))
        );
        let evaluation = rows[0]["evaluation_directory"].as_str().unwrap();
        assert!(Path::new(evaluation).starts_with(RESULTS.join("fashion_mnist_mini").join(objective)), "{evaluation}");
    }
}

#[test]
fn lines_that_cannot_be_read_are_named_and_the_others_count() {
    let run = PLACE.path().join("garbage/8_FlatCLR/now");
    fs::create_dir_all(&run).unwrap();
    let source = run_directory(&RESULTS, "flatclr");
    fs::copy(source.join("config.yml"), run.join("config.yml")).unwrap();
    let good = fs::read_to_string(source.join("metrics.jsonl")).unwrap();
    let (first, second) = good.split_once('\n').unwrap();
    let told = |metrics: &[u8]| {
        fs::write(run.join("metrics.jsonl"), metrics).unwrap();
        let output = flatnce(&["report", run.to_str().unwrap(), "--format=json"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        (rows[0]["epochs_done"].as_u64().unwrap(), said)
    };
    assert_eq!(told(good.as_bytes()), (2, String::new()));
    let (epochs, said) = told(format!("{first}\nnonsense\n\u{1b}[2J\n{second}").as_bytes());
    assert_eq!(epochs, 2);
    assert!(said.contains("metrics.jsonl: not all of 4 lines can be read: line 2 (not a JSON object"), "{said}");
    assert!(said.contains("and 1 more after it") && said.lines().count() == 1, "{said}");
    // Without a line break at its end, and no text at all.
    for garbage in [&b"garbage"[..], b"{garbage", b"\xff\xfe\x00\n\x80"] {
        let (epochs, said) = told(garbage);
        assert_eq!(epochs, 0);
        assert!(said.contains("metrics.jsonl: none of its lines can be read: line 1 ("), "{said}");
    }
    // A line that is being written is no fault.
    assert_eq!(told(format!("{first}\n{}", &second[..20]).as_bytes()), (1, String::new()));
}

#[test]
fn what_cannot_be_reported_is_said() {
    let empty = PLACE.path().join("empty");
    fs::create_dir_all(&empty).unwrap();
    let output = flatnce(&["report", empty.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("no results below"), "{said}");
    // A run that was never evaluated has no accuracy to draw.
    let run = run_directory(&RESULTS, "simclr");
    let copy = PLACE.path().join("copy");
    fs::create_dir_all(&copy).unwrap();
    for name in ["metrics.jsonl", "config.yml"] {
        fs::copy(run.join(name), copy.join(name)).unwrap();
    }
    let plot = copy.join("plot.png");
    let output = flatnce(&["report", copy.to_str().unwrap(), "--plot", plot.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--plot") && !plot.exists(), "{said}");
    // Without its checkpoint it has curves and a warning.
    let pictures = copy.join("pictures");
    let output = flatnce(&["report", copy.to_str().unwrap(), "--pictures", pictures.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("no pictures of"), "{said}");
    assert!(pictures.join("contrastive-loss.png").exists());
}
