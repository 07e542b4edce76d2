//! State over HTTP: any instance answers for any key.

use std::collections::BTreeSet;

use kstreams::{I64, Position, QueryClient, Utf8};
use serde_json::json;

use crate::application::PATIENCE;
use crate::http_site::{Site, get, runtime, settings, wait_until_settled};
use crate::queries::{cluster, write};

fn name(number: usize) -> String {
    format!("user-{number:02}")
}

#[test]
fn any_instance_answers_for_any_key_and_says_who_did() {
    let (runtime, cluster) = (runtime(), cluster());
    let sites = [(); 3].map(|()| Site::start(&runtime, settings(&cluster)));
    wait_until_settled(&[&sites[0], &sites[1], &sites[2]]);
    let mut written = Position::new();
    for number in 0..40 {
        for _ in 0..=number % 3 {
            written = written.merge(&write(&cluster, "clicks", &name(number), "", number as i64));
        }
    }
    let mut answered = BTreeSet::new();
    for number in 0..40 {
        let path = format!("/v1/stores/counts/keys/{}?position={written}", name(number));
        for site in &sites {
            let reply = site.get(&path);
            let body = reply.json();
            assert_eq!((reply.status, &body["value"]), (200, &json!(number % 3 + 1)), "{body}");
            assert_eq!((&body["key"], &body["stale"]), (&json!(name(number)), &json!(false)));
            let seen: Position = reply.header("x-kstreams-position").unwrap().parse().unwrap();
            assert!(seen.iter().next().is_some());
            answered.insert(reply.header("x-kstreams-served-by").unwrap().to_owned());
        }
    }
    assert_eq!(answered, sites.iter().map(|site| site.address.clone()).collect());

    let nobody = sites[0].get("/v1/stores/counts/keys/nobody");
    assert_eq!((nobody.status, nobody.code().as_str()), (404, "no_such_key"));
    let octets = get(&sites[1].address, "/v1/stores/counts/keys/user-02", &["accept: application/octet-stream"]);
    assert_eq!((octets.status, octets.body), (200, 3_i64.to_be_bytes().to_vec()));
    let owner = sites[2].get("/v1/metadata/counts/keys/user-02").json();
    assert_eq!(owner["active"].as_str(), octets_owner(&sites[0]).as_deref());
}

fn octets_owner(site: &Site) -> Option<String> {
    site.get("/v1/stores/counts/keys/user-02").header("x-kstreams-served-by").map(str::to_owned)
}

#[test]
fn rows_of_all_partitions_come_in_one_order_and_in_pages() {
    let (runtime, cluster) = (runtime(), cluster());
    let sites = [(); 2].map(|()| Site::start(&runtime, settings(&cluster)));
    wait_until_settled(&[&sites[0], &sites[1]]);
    let mut written = Position::new();
    for number in 0..40 {
        written = written.merge(&write(&cluster, "clicks", &name(number), "", 0));
    }
    let all: Vec<(String, i64)> = (0..40).map(|number| (name(number), 1)).collect();
    for site in &sites {
        let client = QueryClient::new([&site.address]).unwrap().with_timeout(PATIENCE);
        let counts = client.store("counts", Utf8, I64).with_position(&written);
        runtime.block_on(async {
            let rows = counts.range(None, None).unwrap().page_rows(7).collect().await.unwrap();
            assert_eq!(rows, all);
            let mut back = counts.range(None, None).unwrap().reverse().page_rows(9).collect().await.unwrap();
            back.reverse();
            assert_eq!(back, all);
            let some = counts.range(Some(&name(10)), Some(&name(19))).unwrap().collect().await.unwrap();
            assert_eq!(some, all[10..20]);
        });
        let prefixed = site.get("/v1/stores/counts/prefix?prefix=user-3&limit=4").json();
        assert_eq!(prefixed["rows"].as_array().unwrap().len(), 4, "{prefixed}");
        assert_eq!(prefixed["rows"][0]["key"], json!("user-30"));
        let next = prefixed["next"].as_str().unwrap();
        let rest = site.get(&format!("/v1/stores/counts/prefix?prefix=user-3&{next}")).json();
        assert_eq!((rest["rows"].as_array().unwrap().len(), &rest["next"]), (6, &json!(null)));
    }
}

#[test]
fn stores_of_every_kind_are_served() {
    let (runtime, cluster) = (runtime(), cluster());
    let sites = [(); 2].map(|()| Site::start(&runtime, settings(&cluster)));
    wait_until_settled(&[&sites[0], &sites[1]]);
    let mut written = Position::new();
    for at in [0, 40_000, 160_000, 200_000] {
        written = written.merge(&write(&cluster, "clicks", "ann", "", at));
    }
    let lived = [("york", 1_000), ("bath", 5_000)].map(|(town, at)| write(&cluster, "towns", "ann", town, at));
    let customer = write(&cluster, "customers", "7", "ann", 0);
    for site in &sites {
        let client = QueryClient::new([&site.address]).unwrap().with_timeout(PATIENCE);
        let ann = "ann".to_owned();
        runtime.block_on(async {
            let windows = client.store("per-minute", Utf8, I64).with_position(&written);
            let rows = windows.windows(&ann, 0, i64::MAX).unwrap().page_rows(1).collect().await.unwrap();
            assert_eq!(rows, [(0, 2), (120_000, 1), (180_000, 1)]);
            let back = windows.windows(&ann, 0, 150_000).unwrap().reverse().page_rows(1).collect().await.unwrap();
            assert_eq!(back, [(120_000, 1), (0, 2)]);
            let visits = client.store("visits", Utf8, I64).with_position(&written);
            let rows = visits.sessions(&ann, 0, i64::MAX).unwrap().page_rows(1).collect().await.unwrap();
            assert_eq!(rows, [(0, 40_000, 2), (160_000, 200_000, 2)]);
            let towns = client.store("towns", Utf8, Utf8).with_position(&lived[1]);
            assert_eq!(towns.get(&ann).await.unwrap().value.as_deref(), Some("bath"));
            assert_eq!(towns.get_as_of(&ann, 4_999).await.unwrap().value.as_deref(), Some("york"));
            let customers = client.store("customers", Utf8, Utf8).with_position(&customer);
            assert_eq!(customers.get(&"7".to_owned()).await.unwrap().value, Some(ann.clone()));
            let none = client.store("counts", Utf8, I64).get(&"nobody".to_owned()).await.unwrap();
            assert_eq!(none.value, None);
        });
        let wrong = site.get("/v1/stores/counts/windows/ann");
        assert_eq!((wrong.status, wrong.code().as_str()), (400, "wrong_kind"));
        let stores = site.get("/v1/stores").json();
        assert_eq!(stores["stores"].as_array().unwrap().len(), 5);
        assert_eq!(site.get("/v1/ready").json()["state"], json!("RUNNING"));
    }
}

#[test]
fn what_is_written_through_one_instance_is_read_through_another_ten_thousand_times() {
    let (runtime, cluster) = (runtime(), cluster());
    let sites = [(); 2].map(|()| Site::start(&runtime, settings(&cluster)));
    wait_until_settled(&[&sites[0], &sites[1]]);
    let clients = [0, 1].map(|one: usize| QueryClient::new([&sites[one].address]).unwrap().with_timeout(PATIENCE));
    // Each of a hundred users writes and reads a hundred times, one after the other.
    let user = |number: usize, cluster: kstreams::EmbeddedCluster, client: QueryClient| async move {
        let counts = client.store("counts", Utf8, I64);
        for turn in 1..=100 {
            let written = write(&cluster, "clicks", &name(number), "", turn);
            let answer = counts.with_position(&written).get(&name(number)).await.unwrap();
            assert_eq!(answer.value, Some(turn), "user {number}");
            assert!(answer.position.covers(&written));
            assert_eq!(answer.lag, None);
        }
    };
    let users: Vec<_> =
        (0..100).map(|number| runtime.spawn(user(number, cluster.clone(), clients[number % 2].clone()))).collect();
    runtime.block_on(async {
        for user in users {
            user.await.unwrap();
        }
    });
}
