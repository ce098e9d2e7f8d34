//! What ships for Prometheus and Grafana, on a real Prometheus (140).

use std::process::Command;

use super::metrics::Prometheus;
use super::steered;
use crate::kit::peer::transfer;
use crate::kit::{Directory, KIB, Listener, PATIENCE, Setup, poll, skip, test_name};

const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/prometheus-alerts.yml");
const DASHBOARD: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/contrib/grafana-dashboard.json"
));

#[test]
fn b140_alert_rules_are_well_formed() {
    let Ok(output) = Command::new("promtool")
        .args(["check", "rules", ALERTS])
        .output()
    else {
        return skip(&test_name(), "promtool is not there");
    };
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn b140_queries_of_the_dashboard_and_the_alerts_find_their_metrics() {
    let (server, directory) = (Listener::new(), Directory::new());
    let steered = steered(
        Setup::new(server.address())
            .and("127.0.0.1:0", "127.0.0.1:1")
            .set("metrics.listen", "127.0.0.1:0"),
    );
    let refused: std::net::SocketAddr = steered.forwarder.addresses()[1].parse().unwrap();
    let at = steered.forwarder.wait_for_line("metrics can be read");
    let Some(prometheus) = Prometheus::start(&directory, at.text("listener")) else {
        return skip(&test_name(), "prometheus is not there");
    };
    let traffic = || {
        for _ in 0..3 {
            let (mut client, mut upstream) = (steered.forwarder.connect(), server.accept());
            transfer(&mut client, &mut upstream, KIB);
            transfer(&mut upstream, &mut client, KIB);
            client.close();
            upstream.expect_then_eof(0);
            let _ = std::net::TcpStream::connect(refused);
        }
    };
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|it| it["targets"].as_array().unwrap());
    let expressions: Vec<String> = targets
        .map(|it| it["expr"].as_str().unwrap().to_owned())
        .map(|it| {
            it.replace("$__rate_interval", "5s")
                .replace("$instance", ".*")
        })
        .collect();
    assert!(expressions.len() >= 10);
    for expression in &expressions {
        let found = poll(PATIENCE, || {
            traffic();
            std::thread::sleep(std::time::Duration::from_millis(200));
            prometheus.query(expression)
        });
        assert!(
            found.is_some(),
            "{expression} finds nothing: {}",
            prometheus.log()
        );
    }
    // Of an alert its metrics must be there; that it fires is another matter.
    let rules = std::fs::read_to_string(ALERTS).unwrap();
    let words = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|it| it.starts_with("thalweg_") || it.starts_with("process_"));
    let mut checked = 0;
    for name in names {
        if name == "thalweg_server_state" || name == "thalweg" {
            continue;
        }
        let found = poll(PATIENCE, || prometheus.query(&format!("count({name})")));
        assert!(found.is_some(), "{name} is in no scrape");
        checked += 1;
    }
    assert!(checked >= 8, "{checked}");
}
