//! For the tests of agents: a mesh within the test's own process, stand-ins for agents that are
//! called, contexts for handlers without a network, and assertions on policies.
//!
//! Everything here is made for tests: identities are thrown away with the test, and what is asked
//! for wrongly may panic. The feature `testing` brings it; put it under `[dev-dependencies]`.
//!
//! ```
//! use convoke::testing::{Mesh, MockCallee, TestPolicy};
//! use convoke::{CallError, Context, HandlerError, agent};
//! use serde_json::json;
//!
//! struct Planner;
//!
//! #[agent]
//! impl Planner {
//!     /// Plan a trip
//!     #[capability(ephemeral)]
//!     async fn plan(&self, context: &Context, to: String) -> Result<String, HandlerError> {
//!         let weather = context.config().registry("weather")?;
//!         let sky: String =
//!             context.call_agent(weather, "forecast", json!({"place": to})).into().await?;
//!         Ok(format!("{to}, where it is {sky}"))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let weather = MockCallee::new().answers("forecast", "sunny");
//! let asked = weather.log();
//! let mesh = Mesh::new("example.org")
//!     .agent("planner", Planner, TestPolicy::allow_all())
//!     .mock("weather", weather)
//!     .start()
//!     .await?;
//!
//! let plan = mesh.call_as("user/ann", "planner", "plan", json!({"to": "Ghent"})).await?;
//! assert_eq!(plan.get(), r#""Ghent, where it is sunny""#);
//!
//! let calls = asked.calls();
//! assert_eq!(calls[0].caller.name(), "spiffe://example.org/planner");
//! assert_eq!(calls[0].params.get(), r#"{"place":"Ghent"}"#);
//! mesh.stop().await;
//! # Ok(())
//! # }
//! ```

mod authority;
mod context;
#[allow(clippy::disallowed_methods, reason = "it stands between sockets that `net` opened")]
mod door;
mod log;
mod mesh;
mod mock;
mod policy;

pub use context::{TestContext, context};
pub use log::{CallLog, LoggedCall};
pub use mesh::{Mesh, MeshError, RunningMesh, TestPolicy};
pub use mock::MockCallee;
pub use policy::PolicyTester;
