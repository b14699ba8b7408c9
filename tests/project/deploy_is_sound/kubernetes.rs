//! deploy/kubernetes: valid by the API's own schemas, and what its objects say of each other and of the program is so.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::LazyLock;

use embosser::config::Config;
use serde_json::{Value, json};

use super::{linter, read, root, said};

/// Kubernetes' versions whose schemas are held against: the oldest that is kept somewhere, and the newest.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];
const FOLDER: &str = "deploy/kubernetes";
/// An operator's own kind has its schema in a cluster alone.
const WITHOUT_SCHEMA: &str = "monitoring.yaml";

/// The objects of all YAML files by their files, as JSON; read once, since each start of the reader takes its time.
fn files() -> Option<&'static BTreeMap<String, Vec<Value>>> {
    static FILES: LazyLock<Option<BTreeMap<String, Vec<Value>>>> = LazyLock::new(|| {
        let read = "import glob, json; from ruamel.yaml import YAML\n\
                    print(json.dumps({name: list(YAML(typ='safe').load_all(open(name))) for name in glob.glob('*.yaml')}))";
        let mut python = Command::new(linter("python")?);
        let output = python.args(["-c", read]).current_dir(root().join(FOLDER)).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        Some(serde_json::from_slice(&output.stdout).unwrap())
    });
    FILES.as_ref()
}

/// What is applied.
struct Applied {
    files: Vec<String>,
    objects: Vec<Value>,
}

impl Applied {
    fn read() -> Option<Self> {
        let there = files()?;
        let kustomization = &there["kustomization.yaml"][0];
        let files: Vec<String> = serde_json::from_value(kustomization["resources"].clone()).unwrap();
        let objects = files.iter().map(|file| {
            there
                .get(file)
                .unwrap_or_else(|| panic!("kustomization.yaml names {file}, which is not there"))
                .clone()
        });
        let objects = objects.collect::<Vec<_>>().concat();
        Some(Self { files, objects })
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The two deployments' pods, by their labels' name.
    fn pods(&self) -> BTreeMap<&str, &Value> {
        let pods = self.of_kind("Deployment").map(|deployment| &deployment["spec"]["template"]);
        pods.map(|pod| (pod["metadata"]["labels"]["app.kubernetes.io/name"].as_str().unwrap(), pod)).collect()
    }
}

#[test]
fn what_kustomize_applies_is_there_and_valid() {
    let (Some(applied), Some(validate)) = (Applied::read(), linter("kubernetes-validate")) else { return };
    let listed: BTreeSet<&str> = applied.files.iter().map(String::as_str).collect();
    let there = files().unwrap().keys().map(String::as_str).filter(|name| *name != "kustomization.yaml");
    assert_eq!(there.collect::<BTreeSet<_>>(), listed, "a file that is not applied");
    for version in VERSIONS {
        let files = listed.iter().filter(|file| **file != WITHOUT_SCHEMA);
        let paths = files.map(|file| root().join(FOLDER).join(file));
        let output = Command::new(&validate).args(["--strict", "-k", version]).args(paths).output().unwrap();
        assert!(output.status.success(), "{version}: {}", said(&output));
    }
    let mut names = BTreeSet::new();
    for object in &applied.objects {
        let named = (object["kind"].to_string(), object["metadata"]["name"].to_string());
        assert!(names.insert(named.clone()), "{named:?} is there twice");
        assert!(object["metadata"]["namespace"].is_null(), "kustomize says the namespace");
        assert_ne!(object["kind"], "Secret", "secrets are by reference alone");
    }
}

#[test]
fn every_pod_is_confined_bounded_and_given_time_to_stop() {
    let Some(applied) = Applied::read() else { return };
    let defaults = Config::default();
    let pods = applied.pods();
    assert_eq!(pods.keys().copied().collect::<Vec<_>>(), ["embosser-serve", "embosser-worker"]);
    let settings = &applied.of_kind("ConfigMap").next().unwrap()["data"];
    for (name, pod) in pods {
        let spec = &pod["spec"];
        assert_eq!(spec["automountServiceAccountToken"], false, "{name}");
        assert_eq!(spec["serviceAccountName"], name);
        let security = &spec["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{name}");
        assert_eq!(security["seccompProfile"], json!({"type": "RuntimeDefault"}), "{name}");
        assert_eq!(security["runAsUser"], security["fsGroup"], "{name}: its group reads the secrets");
        for shared in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(spec[shared].is_null(), "{name}: {shared}");
        }
        let containers = spec["containers"].as_array().unwrap();
        assert_eq!((containers.len(), spec.get("initContainers")), (1, None), "{name}");
        let container = &containers[0];
        let confined = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]}});
        assert_eq!(container["securityContext"], confined, "{name}");
        let resources = &container["resources"];
        assert_eq!(resources["requests"], resources["limits"], "{name} may be swapped");
        let mib: u64 =
            resources["limits"]["memory"].as_str().unwrap().strip_suffix("Mi").unwrap().parse().unwrap();
        assert!(mib >= defaults.http.held_mib_max + 64, "{name} has {mib} MiB");
        let grace = spec["terminationGracePeriodSeconds"].as_f64().unwrap();
        assert!(grace > defaults.worker.drain_seconds, "{name} has {grace} s to stop");
        // What hangs is restarted; what waits is not, and answers on its own path that it is not ready.
        let asked = |probe: &str| container[probe]["httpGet"].clone();
        assert_eq!(asked("livenessProbe"), json!({"path": "/healthz", "port": "http"}), "{name}");
        assert_eq!(asked("startupProbe"), json!({"path": "/healthz", "port": "http"}), "{name}");
        assert_eq!(asked("readinessProbe"), json!({"path": "/readyz", "port": "http"}), "{name}");
        let (every, times) =
            (&container["livenessProbe"]["periodSeconds"], &container["livenessProbe"]["failureThreshold"]);
        assert!(
            every.as_u64().unwrap() * times.as_u64().unwrap() >= 60,
            "{name} is restarted for a moment's pause"
        );
        let option =
            if name == "embosser-worker" { "EMBOSSER__WORKER__LISTEN" } else { "EMBOSSER__HTTP__LISTEN" };
        let port = container["ports"][0]["containerPort"].as_u64().unwrap();
        assert_eq!(settings[option], format!("0.0.0.0:{port}"), "{name}");
        runs(name, container);
    }
}

/// The program has that command, and each file that an option names is mounted.
fn runs(name: &str, container: &Value) {
    let command = container["args"][0].as_str().unwrap();
    let help = Command::new(env!("CARGO_BIN_EXE_embosser")).args([command, "--help"]).output().unwrap();
    assert!(help.status.success(), "{name}: {}", said(&help));
    let mounts: Vec<&str> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["mountPath"].as_str().unwrap())
        .collect();
    let settings = read("deploy/kubernetes/settings.yaml");
    let named = settings.split("/etc/embosser/").skip(1).map(|rest| rest.split(['/', '\n']).next().unwrap());
    let own = container["env"].as_array().unwrap().iter().filter_map(|variable| variable["value"].as_str());
    let own = own.filter_map(|path| path.strip_prefix("/etc/embosser/")?.split('/').next());
    let mut found = 0;
    for folder in named.chain(own) {
        assert!(
            mounts.contains(&format!("/etc/embosser/{folder}").as_str()),
            "{name}: {folder} is not mounted"
        );
        found += 1;
    }
    assert!(found >= 4, "{name}: {found} files");
}

/// Whoever selects pods selects some of ours.
#[test]
fn every_selector_finds_its_pods() {
    let Some(applied) = Applied::read() else { return };
    let pods = applied.pods();
    let mut found = 0;
    for object in &applied.objects {
        let spec = &object["spec"];
        let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        let selected = match kind {
            "Service" => &spec["selector"],
            "Deployment" | "PodDisruptionBudget" | "PodMonitor" => &spec["selector"]["matchLabels"],
            "NetworkPolicy" if spec["podSelector"] != json!({}) => &spec["podSelector"]["matchLabels"],
            "HorizontalPodAutoscaler" => {
                let target = spec["scaleTargetRef"]["name"].as_str().unwrap();
                assert!(pods.contains_key(target), "{target}");
                let deployment =
                    applied.of_kind("Deployment").find(|found| found["metadata"]["name"] == target);
                assert!(
                    deployment.unwrap()["spec"]["replicas"].is_null(),
                    "two would say how many there are"
                );
                continue;
            }
            _ => continue,
        };
        let selected = selected["app.kubernetes.io/name"].as_str().unwrap_or_else(|| panic!("{kind} {name}"));
        assert!(pods.contains_key(selected), "{kind} {name} selects {selected}");
        found += 1;
    }
    assert!(found >= 9, "{found} selectors");
}

/// Nothing is let in or out but what a policy names; Stripe is the worker's alone, and no policy lets anything out to everywhere.
#[test]
fn the_network_lets_through_what_is_needed_and_nothing_else() {
    let Some(applied) = Applied::read() else { return };
    let mut closed = BTreeSet::new();
    let mut ports = BTreeMap::<String, BTreeSet<String>>::new();
    for policy in applied.of_kind("NetworkPolicy") {
        let (spec, name) = (&policy["spec"], policy["metadata"]["name"].as_str().unwrap());
        if spec["podSelector"] == json!({}) {
            closed.extend(
                spec["policyTypes"].as_array().unwrap().iter().map(|side| side.as_str().unwrap().to_owned()),
            );
        }
        for (side, end) in [("egress", "to"), ("ingress", "from")] {
            for rule in spec[side].as_array().into_iter().flatten() {
                assert!(rule[end].as_array().is_some_and(|ends| !ends.is_empty()), "{name}: anybody");
                for port in rule["ports"].as_array().unwrap_or_else(|| panic!("{name}: any port")) {
                    ports.entry(format!("{side} {name}")).or_default().insert(port["port"].to_string());
                }
                for peer in rule[end].as_array().unwrap() {
                    let except = peer["ipBlock"]["except"].as_array().map_or(0, Vec::len);
                    assert!(peer["ipBlock"].is_null() || (name == "stripe" && except == 5), "{name}: {peer}");
                }
            }
        }
    }
    assert_eq!(closed, BTreeSet::from(["Egress".to_owned(), "Ingress".to_owned()]));
    let stripe =
        applied.of_kind("NetworkPolicy").find(|policy| policy["metadata"]["name"] == "stripe").unwrap();
    assert_eq!(stripe["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"], "embosser-worker");
    let told: Vec<String> = ports
        .iter()
        .map(|(name, ports)| {
            format!("{name}: {}", Vec::from_iter(ports.iter().map(String::as_str)).join(" "))
        })
        .collect();
    assert_eq!(
        told,
        [
            "egress broker-and-ledger: 53 5432 5671",
            "egress stripe: 443",
            "ingress people: \"http\"",
            "ingress prometheus: \"http\"",
        ]
    );
}

/// Uploads hold PIN ciphertext: they are on no disk of the proxy's, and as large as serve takes them.
#[test]
fn the_ingress_writes_no_upload_to_a_disk() {
    let Some(applied) = Applied::read() else { return };
    let ingress = applied.of_kind("Ingress").next().unwrap();
    let says = |name: &str| {
        ingress["metadata"]["annotations"][format!("nginx.ingress.kubernetes.io/{name}")]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!((says("proxy-request-buffering").as_str(), says("proxy-buffering").as_str()), ("off", "off"));
    assert_eq!(says("proxy-body-size"), format!("{}m", Config::default().http.upload_mib_max));
    let service = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"];
    assert!(applied.of_kind("Service").any(|found| found["metadata"]["name"] == *service));
    assert!(ingress["spec"]["tls"][0]["hosts"][0] == ingress["spec"]["rules"][0]["host"], "without TLS");
}

/// README.md makes each secret that something refers to.
#[test]
fn every_secret_that_is_referred_to_is_explained() {
    let Some(applied) = Applied::read() else { return };
    let told = read("deploy/kubernetes/README.md");
    let mut named = BTreeSet::new();
    let mut walk: Vec<&Value> = applied.objects.iter().collect();
    while let Some(value) = walk.pop() {
        let name = value["secretName"].as_str().or(value["secretKeyRef"]["name"].as_str());
        let name = name.or(value["credentials"]["name"].as_str());
        named.extend(name);
        match value {
            Value::Object(members) => walk.extend(members.values()),
            Value::Array(values) => walk.extend(values),
            _ => {}
        }
    }
    assert_eq!(named.len(), 6, "{named:?}");
    for name in named {
        assert!(told.contains(&format!(" {name} ")), "README.md does not say how {name} is made");
    }
    for volume in applied.pods().values().flat_map(|pod| pod["spec"]["volumes"].as_array().unwrap()) {
        let mode = volume["secret"]["defaultMode"].as_u64();
        assert!(volume["secret"].is_null() || mode == Some(0o440), "{volume}: others could read it");
    }
}
