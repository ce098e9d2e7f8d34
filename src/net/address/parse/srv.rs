//! `srv:_service._proto.name`: a name whose SRV records (RFC 2782) say which hosts
//! and ports serve it. Strict, because a misspelt one would only fail at run time.

use super::super::AddressError;
use super::host_name;

/// Bytes of a service's name, without the underscore: RFC 6335, section 5.1.
const SERVICE_MAX: usize = 15;

/// Protocols that have SRV records and are forwarded by nobody here.
const NEITHER: [&str; 2] = ["_sctp", "_dccp"];

/// What follows `srv:`, lower case; a dot at its end stays.
pub(super) fn name(text: &str, name: &str) -> Result<String, AddressError> {
    const FORM: &str = "write srv:_SERVICE._tcp.DOMAIN, such as `srv:_http._tcp.example.com`";
    let error = |problem: String| AddressError::new(text, problem);
    if name.is_empty() {
        return Err(error("the name is missing".to_owned()).remedy(FORM));
    }
    if let Some((name, _)) = name.split_once(':') {
        return Err(
            error("an SRV name has no port: its records name the ports".to_owned())
                .remedy(format!("write `srv:{name}`")),
        );
    }
    let host = host_name(text, name)?;
    let mut labels = host.splitn(3, '.');
    let parts = (labels.next(), labels.next(), labels.next());
    let (Some(service), Some(protocol), Some(1..)) = (parts.0, parts.1, parts.2.map(str::len))
    else {
        return Err(
            error("an SRV name has a service, a protocol and a domain".to_owned()).remedy(FORM),
        );
    };
    check_service(text, service)?;
    if NEITHER.contains(&protocol) {
        return Err(error(format!("`{protocol}` is neither TCP nor UDP")).remedy(FORM));
    }
    // Not only `_tcp`: Consul has a tag in its place.
    if protocol.len() < 2 || !protocol.starts_with('_') {
        return Err(error(format!("`{protocol}` is not a protocol such as `_tcp`")).remedy(FORM));
    }
    Ok(host)
}

/// `_http`: the name of a service by RFC 6335 behind an underscore.
fn check_service(text: &str, service: &str) -> Result<(), AddressError> {
    let error = |problem: String| Err(AddressError::new(text, problem));
    let Some(name) = service.strip_prefix('_') else {
        return Err(
            AddressError::new(text, format!("the service `{service}` has no underscore"))
                .remedy(format!("write `_{service}`")),
        );
    };
    if name.is_empty() || name.len() > SERVICE_MAX {
        return error(format!(
            "a service's name has 1 to {SERVICE_MAX} characters after the underscore, \
             this one has {}",
            name.len()
        ));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if !name.bytes().all(plain)
        || name.starts_with('-')
        || name.ends_with('-')
        || name.contains("--")
    {
        return error(format!(
            "`{service}` is not the name of a service: letters, digits and single hyphens"
        ));
    }
    Ok(())
}
