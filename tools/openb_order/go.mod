module divvy/tools/openb_order

go 1.21
