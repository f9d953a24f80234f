//! gdnsd, another server with health checks, for comparison.
#![allow(dead_code)] // each test program uses its part

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Stdio},
};

use crate::{netns::Namespace, program::Folder};

/// gdnsd in the foreground; killed when dropped.
pub struct Gdnsd(Child);

impl Gdnsd {
    /// Answers on `listen` in the zone `geo.example`: each of `resources` is a label, and two addresses, of which the first is
    /// answered while its service is up. `service` is the text of the service type.
    pub fn start(
        home: &Namespace,
        listen: SocketAddr,
        service: &str,
        resources: &[(&str, String, String)],
    ) -> (Gdnsd, Folder) {
        let folder = Folder::new();
        let root = folder.path().display();
        fs::create_dir_all(folder.path().join("zones")).unwrap();
        let mut plugin = String::from("service_types => web");
        let mut zone = String::from(
            "@ 60 SOA ns1.example.net. hostmaster.geo.example. 1 7200 1800 259200 60\n@ 60 NS ns1.example.net.\n",
        );
        for (label, first, second) in resources {
            plugin += &format!(", {label} => {{ primary => {first}, secondary => {second} }}");
            zone += &format!("{label} 60 DYNA simplefo!{label}\n");
        }
        folder.write(
            "config",
            &format!(
                "options => {{ listen => [ {listen} ], run_dir => {root}/run, state_dir => {root}/state }}
                 service_types => {{ web => {{ {service} }} }}
                 plugins => {{ simplefo => {{ {plugin} }} }}\n"
            ),
        );
        folder.write("zones/geo.example", &zone);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = home
            .command("gdnsd")
            .args(["-c", &folder.path().to_string_lossy(), "start"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("gdnsd is installed");
        (Gdnsd(child), folder)
    }
}

impl Drop for Gdnsd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
