//! A calendar for templates that want to know the date: `strftime` over a time that is given, in UTC.

/// Formats seconds since 1970 with the directives of C's `strftime` that templates use, in English. A directive
/// that is not known stays as it stands.
pub(super) fn format(seconds: i64, format: &str) -> String {
    let now = Moment::new(seconds);
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match rest.next() {
            Some('-') => text.push_str(now.directive(rest.next(), false).trim_start_matches('0')),
            directive => text.push_str(&now.directive(directive, true)),
        }
    }
    text
}

struct Moment {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: i64,
    /// Sunday is zero.
    weekday: i64,
    second_of_day: i64,
}

impl Moment {
    /// Counts years from March, so that the leap day is the last of its year.
    fn new(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let since_march_0 = days + 719_468;
        let era = since_march_0.div_euclid(146_097);
        let day_of_era = since_march_0.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * from_march + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let leap = i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
        let day_of_year = if month <= 2 { from_march - 305 } else { from_march + 60 + leap };
        Self {
            year,
            month,
            day: from_march - (153 * shifted + 2) / 5 + 1,
            day_of_year,
            weekday: (days + 4).rem_euclid(7),
            second_of_day: seconds.rem_euclid(86_400),
        }
    }

    fn directive(&self, directive: Option<char>, padded: bool) -> String {
        let (hour, minute, second) =
            (self.second_of_day / 3_600, self.second_of_day / 60 % 60, self.second_of_day % 60);
        match directive {
            Some('A') => name(&WEEKDAYS, self.weekday).to_owned(),
            Some('a') => name(&WEEKDAYS, self.weekday)[..3].to_owned(),
            Some('B') => name(&MONTHS, self.month - 1).to_owned(),
            Some('b' | 'h') => name(&MONTHS, self.month - 1)[..3].to_owned(),
            Some('d') => format!("{:02}", self.day),
            Some('e') if padded => format!("{:2}", self.day),
            Some('e') => self.day.to_string(),
            Some('F') => format!("{}-{:02}-{:02}", self.year, self.month, self.day),
            Some('H') => format!("{hour:02}"),
            Some('I') => format!("{:02}", (hour + 11) % 12 + 1),
            Some('j') => format!("{:03}", self.day_of_year),
            Some('M') => format!("{minute:02}"),
            Some('m') => format!("{:02}", self.month),
            Some('p') => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
            Some('S') => format!("{second:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Y') => self.year.to_string(),
            Some('y') => format!("{:02}", self.year.rem_euclid(100)),
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('%') => "%".to_owned(),
            Some(unknown) => format!("%{unknown}"),
            None => "%".to_owned(),
        }
    }
}

fn name(names: &[&'static str], index: i64) -> &'static str {
    usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or("???")
}

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

#[cfg(test)]
mod tests {
    use super::format;

    /// Reference values from C's `strftime`.
    #[test]
    fn dates_are_as_in_c() {
        let all = "%Y-%m-%d %H:%M:%S %A %a %B %b %j %I %p %y";
        assert_eq!(format(0, all), "1970-01-01 00:00:00 Thursday Thu January Jan 001 12 AM 70");
        assert_eq!(format(951_782_400, all), "2000-02-29 00:00:00 Tuesday Tue February Feb 060 12 AM 00");
        assert_eq!(format(1_735_689_599, all), "2024-12-31 23:59:59 Tuesday Tue December Dec 366 11 PM 24");
        assert_eq!(format(1_740_787_200, all), "2025-03-01 00:00:00 Saturday Sat March Mar 060 12 AM 25");
        assert_eq!(format(-1, all), "1969-12-31 23:59:59 Wednesday Wed December Dec 365 11 PM 69");
    }

    #[test]
    fn padding_unknown_directives_and_extremes() {
        assert_eq!(format(0, "%-d %e %-m %F %T %% %Q %"), "1  1 1 1970-01-01 00:00:00 % %Q %");
        assert!(!format(i64::MAX / 2, "%c %Y").is_empty() && !format(i64::MIN / 2, "%Y").is_empty());
    }
}
