module regions

go 1.25
