//! Receipts as files: what a requester keeps, shows and checks.
//!
//! A receipt file is JSON for people and exact for machines: the signed bytes travel as base64, beside them a decoded
//! view for reading. Checking a file re-renders it from the signed bytes and compares the whole text, so not one byte
//! of it is outside of what the signatures and commitments say. The `opening` (prompt, salt, tokens) is private;
//! without it the file proves who did which job for whom, but not what was said.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crypto::{Digest, Network, Payload, PeerId, Signed, Verified};
use protocol::event::Completion;
use protocol::receipt::Mismatch;
use protocol::{Acknowledgement, Opening, Receipt};
use serde::{Deserialize, Serialize};

/// The file's first field; a reader refuses any other.
const FORMAT: &str = "llamesh-receipt/1";
/// Largest file read: the largest input and answer, with JSON's escapes.
const MAX_FILE: u64 = 64 << 20;

/// A receipt file that has been checked.
#[derive(Clone, Debug)]
pub struct ReceiptFile {
    /// The mesh it happened in.
    pub network: Network,
    /// The provider's statement.
    pub receipt: Verified<Receipt>,
    /// The requester's countersignature.
    pub acknowledgement: Verified<Acknowledgement>,
    /// What lifts the commitments, unless it was left out.
    pub opening: Option<Opening>,
}

/// Why a file is not a receipt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Something in the file is not what was signed.
    #[error("the file was changed after it was written: it is not the text of what was signed")]
    Altered,
    /// The countersignature is not the requester's, or for another receipt.
    #[error("the countersignature is not the requester's for this receipt")]
    Countersignature,
    /// The system said no.
    #[error("{}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// Not JSON of this form.
    #[error("this is not a receipt file of format {FORMAT}: {0}")]
    Form(String),
    /// The opening does not lift the commitments.
    #[error("{0}")]
    Opening(#[from] Mismatch),
    /// A signature does not hold.
    #[error("the {0}'s signature does not hold")]
    Signature(&'static str),
}

/// The file's JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    network: Network,
    digest: Digest,
    receipt: Statement,
    countersignature: Statement,
    /// The decoded receipt, for reading.
    view: Receipt,
    #[serde(skip_serializing_if = "Option::is_none")]
    opening: Option<Opening>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    signer: PeerId,
    payload: String,
    signature: String,
}

impl ReceiptFile {
    /// The file of a job that was done.
    pub fn of(network: &Network, completion: &Completion) -> Result<Self, ReceiptError> {
        let acknowledgement = completion.acknowledgement.clone().verify(network);
        Ok(Self {
            network: network.clone(),
            receipt: completion.receipt.clone(),
            acknowledgement: acknowledgement.map_err(|_| ReceiptError::Signature("requester"))?,
            opening: Some(completion.opening.clone()),
        })
    }

    /// Reads and checks a file: form, signatures, commitments, and that nothing else is in it.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn read(path: &Path) -> Result<Self, ReceiptError> {
        let fail = |error| ReceiptError::Io { path: path.to_owned(), error };
        let length = fs::metadata(path).map_err(fail)?.len();
        if length > MAX_FILE {
            return Err(ReceiptError::Form(format!("{length} bytes are more than any receipt has")));
        }
        // Not lossily: bytes that read as U+FFFD must not pass for the U+FFFD that was signed.
        let text = String::from_utf8(fs::read(path).map_err(fail)?).map_err(|_| ReceiptError::Altered)?;
        Self::parse(&text)
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn parse(text: &str) -> Result<Self, ReceiptError> {
        let document: Document = serde_json::from_str(text).map_err(|e| ReceiptError::Form(e.to_string()))?;
        if document.format != FORMAT {
            return Err(ReceiptError::Form(format!("it says `{}`", document.format.escape_default())));
        }
        let network = document.network;
        let receipt =
            document.receipt.verify::<Receipt>(&network).ok_or(ReceiptError::Signature("provider"))?;
        let acknowledgement = document.countersignature.verify::<Acknowledgement>(&network);
        let acknowledgement = acknowledgement.ok_or(ReceiptError::Signature("requester"))?;
        if acknowledgement.signer() != receipt.requester || acknowledgement.receipt != receipt.digest() {
            return Err(ReceiptError::Countersignature);
        }
        if receipt.network != network {
            return Err(ReceiptError::Altered);
        }
        if receipt.price.cost(receipt.usage) != Some(receipt.cost) {
            return Err(Mismatch::Sum.into());
        }
        if let Some(opening) = &document.opening {
            receipt.check_opening(opening)?;
        }
        let file = Self { network, receipt, acknowledgement, opening: document.opening };
        // What is written once is written the same again; any other text has something of its own to say.
        if file.render()? == text { Ok(file) } else { Err(ReceiptError::Altered) }
    }

    /// The name of the receipt.
    pub fn digest(&self) -> Digest {
        self.receipt.digest()
    }

    /// The same without its opening: fit to be shown to anybody.
    #[must_use]
    pub fn public(self) -> Self {
        Self { opening: None, ..self }
    }

    /// The text of the file.
    ///
    /// # Errors
    /// [`ReceiptError::Form`], which no receipt that was ever signed causes.
    pub fn render(&self) -> Result<String, ReceiptError> {
        let form = |error: serde_json::Error| ReceiptError::Form(error.to_string());
        let document = Document {
            format: FORMAT.to_owned(),
            network: self.network.clone(),
            digest: self.digest(),
            receipt: Statement::of(self.receipt.signed()),
            countersignature: Statement::of(self.acknowledgement.signed()),
            view: self.receipt.value().clone(),
            opening: self.opening.clone(),
        };
        let mut text = serde_json::to_string_pretty(&document).map_err(form)?;
        text.push('\n');
        Ok(text)
    }

    /// Writes the file into a folder, readable by its owner only, and returns its path.
    ///
    /// # Errors
    /// [`ReceiptError::Io`]; then no file of that name is there, or the old one still is.
    pub fn save(&self, folder: &Path) -> Result<PathBuf, ReceiptError> {
        let path = path_of(folder, self.digest());
        let text = self.render()?;
        let draft = path.with_extension("part");
        let mut options = fs::OpenOptions::new();
        let options = options.create(true).truncate(true).write(true).mode(0o600);
        let written = options.open(&draft).and_then(|mut file| file.write_all(text.as_bytes()));
        let renamed = written.and_then(|()| fs::rename(&draft, &path));
        renamed.map_err(|error| ReceiptError::Io { path: path.clone(), error })?;
        Ok(path)
    }
}

/// Where the file of a receipt is kept.
pub fn path_of(folder: &Path, receipt: Digest) -> PathBuf {
    folder.join(format!("{receipt}.json"))
}

/// Every receipt file of a folder, newest first; files that do not check are returned with what is wrong.
///
/// # Errors
/// When the folder cannot be read. A folder that does not exist holds none.
pub fn list(folder: &Path) -> io::Result<Vec<(PathBuf, Result<ReceiptFile, ReceiptError>)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let json = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut files: Vec<_> = json.map(|path| (path.clone(), ReceiptFile::read(&path))).collect();
    files.sort_by_key(|(_, file)| std::cmp::Reverse(file.as_ref().map_or(0, |f| f.receipt.finished.0)));
    Ok(files)
}

impl Statement {
    fn of<T: Payload>(signed: &Signed<T>) -> Self {
        Self {
            signer: signed.signer(),
            payload: BASE64.encode(signed.payload()),
            signature: BASE64.encode(signed.signature()),
        }
    }

    fn verify<T: Payload>(&self, network: &Network) -> Option<Verified<T>> {
        let payload = BASE64.decode(&self.payload).ok()?;
        let signature = BASE64.decode(&self.signature).ok()?.try_into().ok()?;
        Signed::from_parts(self.signer, payload, signature).verify(network).ok()
    }
}
