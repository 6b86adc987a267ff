// A tunnel for as long as this program runs, however it ends: rustc program.rs; ./program [port]

use std::io::{self, BufRead, BufReader, Read};
use std::process::{exit, Command, Stdio};

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or("8080".into());
    let started = Command::new("tunnel")
        .args(["-ij", &port])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tunnel) = started else {
        eprintln!("tunnel is not installed");
        exit(127);
    };
    let mut record = String::new();
    BufReader::new(tunnel.stdout.take().unwrap()).read_line(&mut record)?;
    // With serde_json: serde_json::from_str::<Value>(&record)?["url"]
    let Some(url) = record
        .split("\"url\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
    else {
        let done = tunnel.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        let status = done.status.code().unwrap_or(1);
        eprintln!(
            "no tunnel, status {status}: {}",
            said.lines().last().unwrap_or("")
        );
        exit(status);
    };

    println!("{url}");
    io::stdin().read_to_end(&mut Vec::new())?; // what the program does

    drop(tunnel.stdin.take());
    tunnel.wait()?;
    Ok(())
}
