//! The engine's functions whose result depends on their arguments alone.

/// Functions that give the same for the same arguments, always.
///
/// A list of what may be relied on and not of what may not, so that a function that a later version
/// of the engine brings is none of these until somebody has looked. Everything of `time` is
/// missing: besides the clock, some of it asks the machine for its time zone.
const PURE: &[&str] = &[
    "__builtin_sets.intersection",
    "__builtin_sets.union",
    "abs",
    "array.concat",
    "array.reverse",
    "array.slice",
    "base64.decode",
    "base64.encode",
    "base64.is_valid",
    "base64url.decode",
    "base64url.encode",
    "base64url.encode_no_pad",
    "bits.and",
    "bits.lsh",
    "bits.negate",
    "bits.or",
    "bits.rsh",
    "bits.xor",
    "ceil",
    "concat",
    "contains",
    "count",
    "endswith",
    "floor",
    "format_int",
    "glob.match",
    "glob.quote_meta",
    "graph.reachable",
    "graph.reachable_paths",
    "hex.decode",
    "hex.encode",
    "indexof",
    "indexof_n",
    "intersection",
    "is_array",
    "is_boolean",
    "is_null",
    "is_number",
    "is_object",
    "is_set",
    "is_string",
    "json.filter",
    "json.is_valid",
    "json.marshal",
    "json.marshal_with_options",
    "json.remove",
    "json.unmarshal",
    "lower",
    "max",
    "min",
    "net.cidr_contains",
    "net.cidr_expand",
    "net.cidr_is_valid",
    "numbers.range",
    "numbers.range_step",
    "object.filter",
    "object.get",
    "object.keys",
    "object.remove",
    "object.subset",
    "object.union",
    "object.union_n",
    "product",
    "regex.find_all_string_submatch_n",
    "regex.find_n",
    "regex.is_valid",
    "regex.match",
    "regex.replace",
    "regex.split",
    "regex.template_match",
    "replace",
    "round",
    "semver.compare",
    "semver.is_valid",
    "sort",
    "split",
    "sprintf",
    "startswith",
    "strings.any_prefix_match",
    "strings.any_suffix_match",
    "strings.count",
    "strings.replace_n",
    "strings.reverse",
    "substring",
    "sum",
    "to_number",
    "trim",
    "trim_left",
    "trim_prefix",
    "trim_right",
    "trim_space",
    "trim_suffix",
    "type_name",
    "union",
    "units.parse",
    "units.parse_bytes",
    "upper",
    "uuid.parse",
    "walk",
];

pub(crate) fn is_pure(function: &str) -> bool {
    PURE.contains(&function)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use regorus::unstable::BUILTINS;

    use super::*;

    #[test]
    fn every_function_of_the_engine_has_been_looked_at() {
        let impure = [
            "rand.intn",
            "time.add_date",
            "time.clock",
            "time.date",
            "time.diff",
            "time.format",
            "time.now_ns",
            "time.parse_duration_ns",
            "time.parse_ns",
            "time.parse_rfc3339_ns",
            "time.weekday",
            "trace",
            "uuid.rfc4122",
        ];
        let looked_at: BTreeSet<&str> = PURE.iter().copied().chain(impure).collect();
        assert_eq!(looked_at, BUILTINS.keys().copied().collect());
        assert!(impure.iter().all(|function| !is_pure(function)));
    }
}
