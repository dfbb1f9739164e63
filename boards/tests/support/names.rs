//! The recorded trees.

pub const TREES: [&str; 6] =
    ["raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano", "laptop-intel", "desktop-amd", "phone-android"];
