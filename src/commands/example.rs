//! `embosser example`: a manifest for trials, its PINs encrypted under the configured server's current key.

use std::io::{self, Write};
use std::path::PathBuf;

use rayon::prelude::*;

use super::Exit;
use super::output::{Unwritten, exit, file};
use crate::config::Config;
use crate::encrypt::encrypt_pin;
use crate::files::Draft;

/// Rows that are encrypted at once: a bound on memory.
const ROWS_AT_ONCE: u64 = 4096;
/// Every n-th row has no PIN.
const WITHOUT_PIN_EVERY: u64 = 4;

/// The columns, in the order of [`cells`].
const HEADER: [&str; COLUMNS] = [
    "row_id",
    "cardholder",
    "type",
    "currency",
    "status",
    "pin[encrypted_number]",
    "personalization_design",
    "second_line",
    "shipping[name]",
    "shipping[address][line1]",
    "shipping[address][line2]",
    "shipping[address][city]",
    "shipping[address][postal_code]",
    "shipping[address][country]",
    "shipping[service]",
    "shipping[require_signature]",
    "spending_controls[spending_limits][0][amount]",
    "spending_controls[spending_limits][0][interval]",
    "spending_controls[spending_limits][1][amount]",
    "spending_controls[spending_limits][1][interval]",
    "spending_controls[spending_limits][1][categories][0]",
    "spending_controls[spending_limits][1][categories][1]",
    "spending_controls[blocked_categories][0]",
    "spending_controls[allowed_merchant_countries][0]",
    "spending_controls[allowed_merchant_countries][1]",
    "lifecycle_controls[cancel_after][payment_count]",
    "metadata[department]",
    "metadata[cost_centre]",
    "metadata[approved by]",
];
const COLUMNS: usize = 29;

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
    let key = key_document(args.sandbox, config).await?;
    match file(args.output.as_ref()) {
        Some(path) => {
            let to_error = |error: io::Error| format!("{}: {error}", path.display());
            let mut draft = Draft::begin(path).map_err(to_error)?;
            exit(write(&mut draft, args.rows, &key))?;
            draft.put().map_err(to_error)?;
            Ok(Exit::Success)
        }
        None => exit(write(io::stdout(), args.rows, &key)),
    }
}

/// The key endpoint's document: the built-in sandbox's, or the configured server's.
pub(super) async fn key_document(of_sandbox: bool, config: &Config) -> Result<Vec<u8>, String> {
    if !of_sandbox {
        return fetch(config, &config.stripe.key_url).await;
    }
    let sandbox = crate::sandbox::Sandbox::start(crate::sandbox::Options::default())
        .await
        .map_err(|error| error.to_string())?;
    let key = fetch(config, &sandbox.key_url()).await?;
    sandbox.stop().await;
    Ok(key)
}

async fn fetch(config: &Config, key_url: &str) -> Result<Vec<u8>, String> {
    let mut stripe = config.stripe.clone();
    key_url.clone_into(&mut stripe.key_url);
    let client = crate::stripe::Client::new(&stripe, &secrecy::SecretString::from("sk_test_none"))
        .map_err(|error| error.to_string())?;
    client.pin_key().await.map(|key| key.to_vec())
}

fn write(out: impl Write, rows: u64, key: &[u8]) -> Result<(), Unwritten> {
    let mut writer = csv::Writer::from_writer(io::BufWriter::with_capacity(1 << 20, out));
    writer.write_record(HEADER).map_err(io::Error::from)?;
    let mut next = 0;
    while next < rows {
        let end = (next + ROWS_AT_ONCE).min(rows);
        let cells: Result<Vec<[String; COLUMNS]>, String> =
            (next..end).into_par_iter().map(|row| cells(row, key)).collect();
        for row in cells.map_err(Unwritten::Source)? {
            writer.write_record(&row).map_err(io::Error::from)?;
        }
        next = end;
    }
    Ok(writer.flush()?)
}

/// A cardholder: where they live says which currency they are paid in.
struct Person {
    name: &'static str,
    street: &'static str,
    floor: &'static str,
    city: &'static str,
    postal_code: &'static str,
    country: &'static str,
    currency: &'static str,
}

/// Names and addresses as they are: accents, commas, quotes.
#[rustfmt::skip]
const PEOPLE: [Person; 7] = [
    Person { name: "Ada Lovelace", street: "12 St James's Square", floor: "", city: "London", postal_code: "SW1Y 4JH", country: "GB", currency: "gbp" },
    Person { name: "José Núñez", street: "Calle de Alcalá, 45", floor: "2º izq.", city: "Madrid", postal_code: "28014", country: "ES", currency: "eur" },
    Person { name: "O'Brien, Siobhán", street: "\"The Old Mill\", Mount Street", floor: "", city: "Dublin", postal_code: "D02 X285", country: "IE", currency: "eur" },
    Person { name: "Zoë \"Zed\" Ångström", street: "Großbeerenstraße 3", floor: "Hinterhaus, 3. OG", city: "Berlin", postal_code: "10963", country: "DE", currency: "eur" },
    Person { name: "Grace Hopper", street: "500 W 2nd St", floor: "Suite 1900", city: "Austin", postal_code: "78701", country: "US", currency: "usd" },
    Person { name: "Łukasz Żak", street: "ul. Świętokrzyska 14", floor: "m. 7", city: "Warszawa", postal_code: "00-050", country: "PL", currency: "eur" },
    Person { name: "Nguyễn Thị Hoa", street: "1 Infinite Loop", floor: "", city: "Cupertino", postal_code: "95014", country: "US", currency: "usd" },
];

/// The row's cells; every mixture of what is given and what is left out comes in a few hundred rows.
fn cells(row: u64, key: &[u8]) -> Result<[String; COLUMNS], String> {
    let pick = |length: usize| usize::try_from(row).unwrap_or(0) % length;
    let person = &PEOPLE[pick(PEOPLE.len())];
    let when = |given: bool, text: &str| if given { text.to_owned() } else { String::new() };
    let physical = row.is_multiple_of(3);
    let shipped = |text: &str| when(physical, text);
    // Most have a limit; some a second one, for travel; contractors have a card that ends by itself.
    let (limited, travels, contractor) = (row % 5 != 4, row.is_multiple_of(4), row % 11 == 7);
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
        person.currency.into(),
        if contractor { "inactive" } else { "active" }.into(),
        pin,
        shipped("pd_example"),
        shipped("ACME LTD"),
        shipped(person.name),
        shipped(person.street),
        shipped(person.floor),
        shipped(person.city),
        shipped(person.postal_code),
        shipped(person.country),
        shipped(["standard", "express", "priority"][pick(3)]),
        shipped(if row.is_multiple_of(2) { "true" } else { "false" }),
        when(limited, &(50_000 + row % 1000 * 100).to_string()),
        when(limited, ["monthly", "daily", "weekly"][pick(3)]),
        when(travels, "250000"),
        when(travels, "yearly"),
        when(travels, "airlines_air_carriers"),
        when(travels, "hotels_motels_and_resorts"),
        when(row % 6 == 1, "betting_casino_gambling"),
        when(contractor, person.country),
        when(contractor && person.country != "US", "US"),
        when(contractor && !physical, "12"),
        ["Sales", "R&D", "Finance, legal", "Ops"][pick(4)].into(),
        format!("{:05}", 420 + row % 7),
        when(row.is_multiple_of(2), "Grace \"Amazing\" Hopper"),
    ])
}
