//! `embosser example`: a manifest for trials, its PINs encrypted under the configured server's current key.

use std::io::{self, Write};
use std::path::PathBuf;

use rayon::prelude::*;

use super::Exit;
use crate::config::Config;
use crate::encrypt::encrypt_pin;

/// Rows that are encrypted at once: a bound on memory.
const ROWS_AT_ONCE: u64 = 4096;
/// Every n-th row has no PIN.
const WITHOUT_PIN_EVERY: u64 = 4;

const HEADER: [&str; 17] = [
    "row_id",
    "cardholder",
    "type",
    "currency",
    "status",
    "pin[encrypted_number]",
    "second_line",
    "shipping[name]",
    "shipping[address][line1]",
    "shipping[address][city]",
    "shipping[address][postal_code]",
    "shipping[address][country]",
    "shipping[service]",
    "spending_controls[spending_limits][0][amount]",
    "spending_controls[spending_limits][0][interval]",
    "metadata[department]",
    "metadata[cost_centre]",
];

/// Options of `embosser example`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many rows.
    #[arg(long, default_value_t = 200)]
    pub rows: u64,
    /// Where to [default: standard output].
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Encrypt under the built-in sandbox's first key instead of the configured server's.
    #[arg(long)]
    pub sandbox: bool,
}

/// Writes the manifest.
///
/// # Errors
/// If the key cannot be fetched or the file not be written.
pub async fn run(args: &Args, config: &Config) -> Result<Exit, String> {
    let key = if args.sandbox {
        let sandbox = crate::sandbox::Sandbox::start(crate::sandbox::Options::default())
            .await
            .map_err(|error| error.to_string())?;
        let key = fetch(config, &sandbox.key_url()).await?;
        sandbox.stop().await;
        key
    } else {
        fetch(config, &config.stripe.key_url).await?
    };
    let out: Box<dyn Write> = match &args.output {
        Some(path) => {
            Box::new(std::fs::File::create(path).map_err(|error| format!("{}: {error}", path.display()))?)
        }
        None => Box::new(io::stdout()),
    };
    write(out, args.rows, &key)?;
    Ok(Exit::Success)
}

async fn fetch(config: &Config, key_url: &str) -> Result<Vec<u8>, String> {
    let mut stripe = config.stripe.clone();
    key_url.clone_into(&mut stripe.key_url);
    let client = crate::stripe::Client::new(&stripe, &secrecy::SecretString::from("sk_test_none"))
        .map_err(|error| error.to_string())?;
    client.pin_key().await.map(|key| key.to_vec())
}

fn write(out: impl Write, rows: u64, key: &[u8]) -> Result<(), String> {
    let mut writer = csv::Writer::from_writer(io::BufWriter::new(out));
    writer.write_record(HEADER).map_err(|error| error.to_string())?;
    let mut next = 0;
    while next < rows {
        let end = (next + ROWS_AT_ONCE).min(rows);
        let cells: Result<Vec<[String; 17]>, String> =
            (next..end).into_par_iter().map(|row| cells(row, key)).collect();
        for row in cells? {
            writer.write_record(&row).map_err(|error| error.to_string())?;
        }
        next = end;
    }
    writer.flush().map_err(|error| error.to_string())
}

fn cells(row: u64, key: &[u8]) -> Result<[String; 17], String> {
    const PEOPLE: [&str; 6] = [
        "Ada Lovelace",
        "José Núñez",
        "O'Brien, Siobhán",
        "Zoë \"Zed\" Ångström",
        "Grace Hopper",
        "Łukasz Żak",
    ];
    const CITIES: [(&str, &str, &str); 4] = [
        ("Dublin", "D02 X285", "IE"),
        ("Berlin", "10115", "DE"),
        ("Austin", "78701", "US"),
        ("London", "SW1A 1AA", "GB"),
    ];
    let pick = |length: usize| usize::try_from(row).unwrap_or(0) % length;
    let (person, (city, postal_code, country)) = (PEOPLE[pick(6)], CITIES[pick(4)]);
    let physical = row.is_multiple_of(3);
    let shipped = |text: &str| if physical { text.to_owned() } else { String::new() };
    let limited = row % 5 != 4;
    let pin = if row % WITHOUT_PIN_EVERY == WITHOUT_PIN_EVERY - 1 {
        String::new()
    } else {
        encrypt_pin(&format!("{:04}", (row * 7919 + 1234) % 10_000), key)
            .map_err(|error| error.to_string())?
    };
    Ok([
        format!("E{:05}", row + 1),
        format!("ich_example{:05}", row + 1),
        if physical { "physical" } else { "virtual" }.into(),
        ["eur", "usd", "gbp"][pick(3)].into(),
        "active".into(),
        pin,
        shipped("ACME LTD"),
        shipped(person),
        shipped(&format!("{} High Street", row + 1)),
        shipped(city),
        shipped(postal_code),
        shipped(country),
        shipped(["standard", "express", "priority"][pick(3)]),
        if limited { format!("{}", 50_000 + row * 100) } else { String::new() },
        if limited { ["monthly", "daily", "weekly"][pick(3)].into() } else { String::new() },
        ["Sales", "R&D", "Finance, legal"][pick(3)].into(),
        format!("{}", 1000 + row % 7),
    ])
}
