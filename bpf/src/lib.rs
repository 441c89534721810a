//! Embedded programs of RVF files, described; nothing here executes them.
