//! Results that are given before a handler's end.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use convoke_model::{Artifact, ArtifactId, Content, IdError, Json, Part};
use serde::Serialize;

use super::{Outlet, Output, OutputError, bounded};
use crate::Context;

/// A result that is given piece by piece. Each piece can be seen as soon as it is committed, except
/// that data and bytes wait for what follows: only then is it known whether they were the last.
///
/// Dropped without [`finish`](Self::finish) it has all of its pieces, and nobody is told that it is
/// complete.
pub struct ArtifactWriter {
    outlet: Option<Arc<dyn Outlet>>,
    id: Result<ArtifactId, IdError>,
    /// Whether a piece was taken.
    begun: bool,
    /// Data or bytes that go out with the next piece, as the last one, or on drop.
    held: Option<Part>,
}

impl ArtifactWriter {
    pub(super) fn new(context: &Context, name: &str) -> Self {
        let outlet = context.outlet().cloned();
        Self { outlet, id: ArtifactId::parse(name), begun: false, held: None }
    }

    /// Adds text. Readers who come later get texts that follow each other as one.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub async fn text(&mut self, text: impl Into<String>) -> Result<(), OutputError> {
        let text = text.into();
        bounded(text.len())?;
        self.release(false).await?;
        self.emit(Part::new(Content::Text(text)), false).await
    }

    /// Adds a value as data.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub async fn data(&mut self, value: impl Serialize) -> Result<(), OutputError> {
        let json = Json::of(&value).map_err(|error| OutputError::Json(error.to_string()))?;
        bounded(json.get().len())?;
        self.hold(Part::new(Content::Data(json))).await
    }

    /// Adds bytes of a media type, such as `image/png`.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub async fn bytes(&mut self, bytes: &[u8], media_type: &str) -> Result<(), OutputError> {
        bounded(bytes.len().div_ceil(3) * 4)?;
        let mut part = Part::new(Content::Raw(BASE64_STANDARD.encode(bytes)));
        part.media_type = Some(media_type.to_owned());
        self.hold(part).await
    }

    /// Says that the artifact is complete. One without a piece is not made.
    ///
    /// # Errors
    ///
    /// [`OutputError`].
    pub async fn finish(mut self) -> Result<(), OutputError> {
        if self.held.is_some() {
            return self.release(true).await;
        }
        if !self.begun {
            return Ok(());
        }
        // A piece has a part. An empty text is joined to the text before it.
        self.emit(Part::new(Content::Text(String::new())), true).await
    }

    async fn hold(&mut self, part: Part) -> Result<(), OutputError> {
        self.outlet()?;
        self.release(false).await?;
        self.held = Some(part);
        Ok(())
    }

    async fn release(&mut self, last: bool) -> Result<(), OutputError> {
        match self.held.take() {
            Some(part) => self.emit(part, last).await,
            None => Ok(()),
        }
    }

    async fn emit(&mut self, part: Part, last: bool) -> Result<(), OutputError> {
        let outlet = self.outlet()?;
        let output = self.output(part, last)?;
        // Before the wait: if that is dropped, the piece may have been taken.
        self.begun = true;
        outlet.emit(output).await
    }

    fn output(&self, part: Part, last: bool) -> Result<Output, OutputError> {
        let artifact_id = self.id.clone()?;
        let artifact = Artifact {
            name: Some(artifact_id.to_string()),
            artifact_id,
            description: None,
            parts: vec![part],
            metadata: None,
            extensions: Vec::new(),
            unknown: Vec::new(),
        };
        Ok(Output::Artifact { artifact, append: self.begun, last })
    }

    fn outlet(&self) -> Result<Arc<dyn Outlet>, OutputError> {
        self.id.as_ref().map_err(|error| OutputError::Name(error.clone()))?;
        self.outlet.clone().ok_or(OutputError::Ephemeral)
    }
}

impl Drop for ArtifactWriter {
    fn drop(&mut self) {
        if let Some(part) = self.held.take()
            && let (Ok(outlet), Ok(output)) = (self.outlet(), self.output(part, false))
        {
            outlet.leave(output);
        }
    }
}

impl fmt::Debug for ArtifactWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactWriter").field("id", &self.id).finish_non_exhaustive()
    }
}
