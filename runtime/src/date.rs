//! Dates for chat templates: C's `strftime`, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

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

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Formats `moment`; unknown conversions stay as written.
pub(crate) fn strftime(format: &str, moment: SystemTime) -> String {
    let seconds = moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let days = seconds / 86400;
    let (year, month, day) = civil(days);
    let day_of_year = days - days_before(year) + 1;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (month_name, weekday) = (MONTHS[month as usize - 1], WEEKDAYS[((days + 4) % 7) as usize]);
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut conversion = letters.next();
        let padded = conversion != Some('-');
        if !padded {
            conversion = letters.next();
        }
        let number = |value: u64| if padded { format!("{value:02}") } else { value.to_string() };
        match conversion {
            Some('Y') => out += &year.to_string(),
            Some('y') => out += &number(year % 100),
            Some('m') => out += &number(month),
            Some('d') => out += &number(day),
            Some('e') => out += &format!("{day:2}"),
            Some('H') => out += &number(hour),
            Some('I') => out += &number((hour + 11) % 12 + 1),
            Some('M') => out += &number(minute),
            Some('S') => out += &number(second),
            Some('p') => out += if hour < 12 { "AM" } else { "PM" },
            Some('j') => out += &format!("{day_of_year:03}"),
            Some('B') => out += month_name,
            Some('b' | 'h') => out += &month_name[..3],
            Some('A') => out += weekday,
            Some('a') => out += &weekday[..3],
            Some('F') => out += &format!("{year}-{month:02}-{day:02}"),
            Some('T') => out += &format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => out += "UTC",
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

/// Year, month and day, from the days since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let mut left = days - days_before(year);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

/// Days from 1970-01-01 to 1 January of `year`.
fn days_before(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        // 2024-02-29 13:05:09, 2000-12-31, 1970-01-01; expected values from `date -u`.
        let format = "%d %b %Y|%A %-d. %B %y|%H:%M:%S|%I %p|%j|%F %T %Z|%%%q%";
        assert_eq!(
            strftime(format, at(1_709_211_909)),
            "29 Feb 2024|Thursday 29. February 24|13:05:09|01 PM|060|2024-02-29 13:05:09 UTC|%%q%"
        );
        assert_eq!(strftime("%a %e %h %Y %j", at(978_220_800)), "Sun 31 Dec 2000 366");
        assert_eq!(strftime("%F %a %I%p", at(0)), "1970-01-01 Thu 12AM");
        assert_eq!(strftime("%F", at(4_102_444_800)), "2100-01-01");
    }
}
