//! A real HTTP server: nginx.
#![allow(dead_code)] // each test program starts it in one way

use std::process::{Child, Command, Stdio};

use super::program::Folder;

/// nginx in the foreground; killed when dropped.
pub struct Nginx(Child);

impl Nginx {
    /// Serves `GET /health` on `addresses`; with `tls`, under the certificate `leaf.pem` of the folder.
    pub fn start(folder: &Folder, name: &str, addresses: &[String], tls: bool) -> Nginx {
        Nginx::start_as(Command::new("nginx"), folder, name, addresses, tls)
    }

    /// The same by a command that runs nginx in some other way.
    pub fn start_as(mut nginx: Command, folder: &Folder, name: &str, addresses: &[String], tls: bool) -> Nginx {
        let root = folder.path().display();
        let mut listen: String =
            addresses.iter().map(|address| format!("listen {address}{};", if tls { " ssl" } else { "" })).collect();
        if tls {
            listen += &format!("ssl_certificate {root}/leaf.pem; ssl_certificate_key {root}/leaf.key;");
        }
        let config = format!(
            "daemon off; master_process off; pid {root}/{name}.pid; error_log {root}/{name}.log;
             events {{ worker_connections 256; }}
             http {{ access_log off; client_body_temp_path {root}/{name}-1; proxy_temp_path {root}/{name}-2;
               fastcgi_temp_path {root}/{name}-3; uwsgi_temp_path {root}/{name}-4; scgi_temp_path {root}/{name}-5;
               server {{ {listen} location /health {{ return 200 'all is well in {name}'; }} }} }}"
        );
        let path = folder.write(&format!("{name}.conf"), &config);
        let child = nginx
            .args(["-c", path.to_str().unwrap(), "-p", folder.path().to_str().unwrap()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        Nginx(child)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
