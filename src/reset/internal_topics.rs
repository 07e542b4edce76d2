//! Which topics are an application's own, by their names alone.

/// Java's rule: the application id, a hyphen, and an ending of the library's.
pub(super) fn is_internal(application_id: &str, topic: &str) -> bool {
    let Some(rest) = topic.strip_prefix(application_id).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let endings = ["-changelog", "-repartition", "-subscription-registration-topic", "-subscription-response-topic"];
    // With the hyphen that is gone from the front: the name between the two may be empty.
    let rest = format!("-{rest}");
    let named = |kind: &str| {
        let numbered = rest.strip_suffix("-topic").and_then(|rest| rest.rsplit_once('-'));
        numbered.is_some_and(|(name, number)| {
            name.ends_with(kind) && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    endings.iter().any(|ending| rest.ends_with(ending))
        || named("-KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION")
        || named("-KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE")
}

/// The application that a topic belongs to more likely, out of all groups: one whose id begins with this one's, a hyphen
/// behind, and begins the topic's name. `orders-v2-…-changelog` is of `orders-v2` and not of `orders`.
pub(super) fn other_owner<'a>(application_id: &str, topic: &str, groups: &'a [String]) -> Option<&'a str> {
    let is_longer = |group: &&String| is_prefix(application_id, group) && is_prefix(group, topic);
    groups.iter().filter(is_longer).max_by_key(|group| group.len()).map(String::as_str)
}

fn is_prefix(id: &str, name: &str) -> bool {
    name.strip_prefix(id).is_some_and(|rest| rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_the_library_are_told_from_others_as_java_does() {
        for topic in [
            "app-KSTREAM-AGGREGATE-STATE-STORE-0000000003-changelog",
            "app-by-word-repartition",
            "app-join-subscription-registration-topic",
            "app-join-subscription-response-topic",
            "app-KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-0000000006-topic",
            "app-KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-0000000014-topic",
        ] {
            assert!(is_internal("app", topic), "{topic}");
        }
        for topic in [
            "app-orders",
            "other-by-word-repartition",
            "application-by-word-repartition",
            "app-changelog-of-mine",
            "app-KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION--topic",
            "app-KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-12a-topic",
            "app",
        ] {
            assert!(!is_internal("app", topic), "{topic}");
        }
    }

    #[test]
    fn a_longer_application_id_owns_what_begins_with_it() {
        let groups = ["app", "app-v2", "app-v2-test", "application", "other"].map(str::to_owned);
        assert_eq!(other_owner("app", "app-counts-changelog", &groups), None);
        assert_eq!(other_owner("app", "app-v2-counts-changelog", &groups), Some("app-v2"));
        assert_eq!(other_owner("app", "app-v2-test-counts-changelog", &groups), Some("app-v2-test"));
        assert_eq!(other_owner("app", "app-v20-counts-changelog", &groups), None);
        assert_eq!(other_owner("app-v2", "app-v2-counts-changelog", &groups), None);
    }
}
