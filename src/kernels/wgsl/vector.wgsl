// As many neighbouring numbers as divide a row.
alias Numbers = {{ vector }};

fn sum_of(v: Numbers) -> f32 {
    return {{ sum }};
}

