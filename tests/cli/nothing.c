// A library that does nothing, in the place of one that does.
int divvy_nothing(void) { return 0; }
