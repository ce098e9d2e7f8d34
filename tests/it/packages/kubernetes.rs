//! `contrib/kubernetes`: manifests and a chart that Kubernetes' own schemas take, with a configuration that thalweg takes.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::project;
use crate::kit::{Directory, skip, test_name};

/// Reads all documents of YAML files as one list of JSON.
const READ: &str = "import json, sys, yaml\n\
    print(json.dumps([it for path in sys.argv[1:] for it in yaml.safe_load_all(open(path)) if it]))";

/// Renders the chart by the Helm that is there (the program, or its library for Python).
const RENDER: &str = "import json, sys, helm_python\n\
    chart = helm_python.Chart.load(sys.argv[1])\n\
    print('\\n---\\n'.join(chart.render(json.loads(sys.argv[2]), name='it').values()))";

/// The Python with what is needed, if whoever runs the tests has one of its own: `pip install pyyaml
/// kubernetes-validate helm-python-sdk`.
fn python() -> Command {
    Command::new(std::env::var_os("THALWEG_TEST_PYTHON").unwrap_or_else(|| "python3".into()))
}

fn manifests() -> Vec<PathBuf> {
    let pattern = project("contrib/kubernetes/*.yaml").display().to_string();
    let found: Vec<_> = glob::glob(&pattern).unwrap().map(Result::unwrap).collect();
    assert!(found.len() >= 5, "{found:?}");
    found
}

/// What the files say; `None`, and said, where nobody reads YAML.
fn read(files: &[PathBuf]) -> Option<Vec<Value>> {
    let Ok(output) = python().args(["-c", READ]).args(files).output() else {
        skip(&test_name(), "python3 is not there");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No module named 'yaml'") {
        skip(&test_name(), "python3 has no yaml");
        return None;
    }
    assert!(output.status.success(), "{said}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn of_kind<'a>(all: &'a [Value], kind: &str) -> Vec<&'a Value> {
    all.iter().filter(|it| it["kind"] == kind).collect()
}

/// The configuration in a ConfigMap is one that `thalweg check` takes, with what the probes need.
fn check_configuration(all: &[Value]) {
    let directory = Directory::new();
    let maps = of_kind(all, "ConfigMap");
    let [map] = maps[..] else {
        panic!("{} ConfigMaps", maps.len())
    };
    let text = map["data"]["thalweg.toml"].as_str().unwrap();
    let file = directory.join("thalweg.toml");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["check", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let resolved = String::from_utf8(output.stdout).unwrap();
    assert!(resolved.contains("watch = true"), "{resolved}");

    for kind in ["DaemonSet", "Deployment"] {
        for workload in of_kind(all, kind) {
            check_pod(&workload["spec"]["template"]["spec"], text);
        }
    }
}

/// Ports, probes and times of a pod are those of its configuration.
fn check_pod(pod: &Value, configuration: &str) {
    let container = &pod["containers"][0];
    let port = |name: &str| {
        let ports = container["ports"].as_array().unwrap();
        let port = ports.iter().find(|it| it["name"] == name).unwrap();
        port["containerPort"].as_u64().unwrap()
    };
    for (name, line) in [("metrics", "listen = \"0.0.0.0:"), ("web", "listen = \":")] {
        let expected = format!("{line}{}\"", port(name));
        assert!(configuration.contains(&expected), "{expected}");
    }
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(container[probe]["httpGet"]["port"], "metrics");
    }
    let drain = configuration
        .lines()
        .find_map(|line| line.strip_prefix("drain_timeout = \""));
    let drain: u64 = drain.unwrap().split('s').next().unwrap().parse().unwrap();
    let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        .as_u64()
        .unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(
        pause + drain < grace,
        "{pause} + {drain} s, and SIGKILL after {grace} s"
    );
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
}

/// By Kubernetes' schemas, each document; those of others (the Prometheus operator's) are not known to them.
fn validate(files: &[PathBuf]) {
    let mut command = python();
    command
        .args(["-m", "kubernetes_validate", "--strict", "--no-warn"])
        .args(files);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if said.contains("No module named") {
        return skip(
            &test_name(),
            "python3 has no kubernetes_validate: schemas are not looked at",
        );
    }
    let wrong: Vec<&str> = said.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(wrong.is_empty() && output.status.success(), "{said}");
}

#[test]
fn manifests_are_what_kubernetes_and_thalweg_take() {
    let files = manifests();
    let Some(all) = read(&files) else { return };
    for kind in [
        "ConfigMap",
        "DaemonSet",
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "HorizontalPodAutoscaler",
        "ServiceMonitor",
    ] {
        assert!(!of_kind(&all, kind).is_empty(), "no {kind}");
    }
    check_configuration(&all);
    assert_eq!(
        of_kind(&all, "DaemonSet")[0]["spec"]["template"]["spec"]["hostNetwork"],
        true
    );
    let of_kubernetes: Vec<_> = files
        .into_iter()
        .filter(|it| !it.ends_with("servicemonitor.yaml"))
        .collect();
    validate(&of_kubernetes);
    // A selector that finds nobody is valid too.
    let deployment = of_kind(&all, "Deployment")[0];
    let labels = deployment["spec"]["template"]["metadata"]["labels"]
        .as_object()
        .unwrap();
    for kind in ["Service", "PodDisruptionBudget", "NetworkPolicy"] {
        for it in of_kind(&all, kind) {
            let spec = &it["spec"];
            let selector = [
                &spec["podSelector"]["matchLabels"],
                &spec["selector"]["matchLabels"],
                &spec["selector"],
            ];
            let selector = selector.into_iter().find_map(Value::as_object).unwrap();
            assert!(
                selector
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value)),
                "{it}"
            );
        }
    }
}

/// What the chart becomes with these values; `None`, and said, without Helm.
fn render(values: &Value) -> Option<String> {
    let chart = project("contrib/kubernetes/chart");
    let mut helm = Command::new("helm");
    let mut arguments = vec![
        "template".to_owned(),
        "it".to_owned(),
        chart.display().to_string(),
    ];
    for (key, value) in values.as_object().unwrap() {
        arguments.extend(["--set-json".to_owned(), format!("{key}={value}")]);
    }
    if let Ok(output) = helm.args(arguments).output() {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{values}: {said}");
        return Some(String::from_utf8(output.stdout).unwrap());
    }
    let output = python()
        .args(["-c", RENDER])
        .arg(&chart)
        .arg(values.to_string())
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No module named") {
        return None;
    }
    assert!(output.status.success(), "{values}: {said}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_chart_renders_to_what_kubernetes_and_thalweg_take() {
    let everything = serde_json::json!({
        "autoscaling": { "enabled": true, "minReplicas": 2, "maxReplicas": 4, "cpuUtilization": 70, "sessions": "20000" },
        "networkPolicy": { "enabled": true, "monitoringNamespace": "monitoring", "egress": [] },
        "serviceMonitor": { "enabled": true, "interval": "15s" },
    });
    let cases = [
        (serde_json::json!({}), 5),
        (serde_json::json!({ "kind": "daemonset" }), 2),
        (everything, 8),
    ];
    for (values, expected) in cases {
        let Some(text) = render(&values) else {
            return skip(
                &test_name(),
                "neither helm nor helm_python is there: the chart is not rendered",
            );
        };
        let directory = Directory::new();
        let file = directory.join("rendered.yaml");
        std::fs::write(&file, text).unwrap();
        let Some(all) = read(&[file]) else { return };
        assert_eq!(all.len(), expected, "{values}");
        check_configuration(&all);
        let own: Vec<String> = all
            .iter()
            .filter(|it| it["kind"] != "ServiceMonitor")
            .map(ToString::to_string)
            .collect();
        let own_file = directory.join("own.yaml");
        std::fs::write(&own_file, own.join("\n---\n")).unwrap();
        validate(&[own_file]);
    }
}
