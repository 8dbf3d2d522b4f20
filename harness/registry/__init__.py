"""Who is there: plugins found, checked and loaded (`known`), and an index that needs no loading (`index`)."""
