//! Generates the messages and clients from the protocol's own files.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../..";
    tonic_build::configure().build_server(false).compile(
        &[
            "proto/zcbroker/v1/admin.proto",
            "proto/zcbroker/v1/broker.proto",
            "proto/zcbroker/v1/errors.proto",
            "proto/zcbroker/v1/launcher.proto",
            "proto/running_process/broker_v1.proto",
        ]
        .map(|file| format!("{root}/{file}")),
        &[root],
    )?;
    Ok(())
}
