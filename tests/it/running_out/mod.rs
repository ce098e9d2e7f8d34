//! Running out of descriptors, of memory, of time, of patience: behaviours 33 to 46
//! on the real binary (39, 43 and 45 are in `memory`).

mod descriptors;
mod faults;
mod pipes;
mod silence;
