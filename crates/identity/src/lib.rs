//! SPIFFE in; verified principal, TLS and the embedded issuer out.
//!
//! An agent takes its X.509-SVID from the SPIFFE Workload API through an [`IdentitySource`], which
//! keeps it fresh; [`tls`] makes of it the two TLS configurations of the mesh. The [`issuer`] is
//! a small certificate authority that answers the same Workload API as SPIRE, so that there is one
//! code path with SPIRE and without.

mod enrolment;
pub mod issuer;
pub mod jwt;
mod look;
mod material;
mod pem_words;
mod process;
mod profile;
pub mod regular_file;
pub mod source;
pub mod tls;

#[cfg(test)]
mod testing;

pub use enrolment::admin_socket;
pub use material::{Bundle, Material, MaterialError};
pub use profile::{AuthorityError, PeerSvid, ProfileError};
pub use source::{FilesConfig, IdentityError, IdentitySource, WorkloadApiConfig};
