//! usage: ping DIRECT_ENDPOINT SERVICE VERSION
use std::io::{Read, Write};

use zcbroker::{blocking, Options};

const PING: [u8; 12] = [8, 0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0]; // a daemon answers with the same

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let options = Options::new(&arguments[2], &arguments[3]);
    let mut daemon = blocking::connect(&arguments[1], &options)?;
    let mut pong = [0; PING.len()];
    daemon.stream.write_all(&PING)?;
    daemon.stream.read_exact(&mut pong)?;
    assert_eq!(pong, PING);
    println!("pong by {} at {}", daemon.lane.name(), daemon.endpoint.display());
    Ok(())
}
